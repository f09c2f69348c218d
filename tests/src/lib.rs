//! End-to-end, conformance, hostile-module and chaos tests.
