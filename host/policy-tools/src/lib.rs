//! What a policy's author needs, none of it with a daemon: new projects, builds, inspection, checks
//! and benchmarks of policy modules.
