//! Load balancer and health probes of a scale set.
