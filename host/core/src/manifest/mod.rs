//! The manifest of a scale set: its types, and the reader that turns YAML into
//! them with every problem reported at once.

mod types;

pub use types::{
    Capacity, DrainPolicy, FileRef, Guards, GuestMetric, Health, Image, ImageDisk, InstanceTemplate,
    LoadBalancer, MissingData, Network, OnFailure, Overlay, PolicyLimits, PolicySpec, Probe, Repair,
    ScaleSet,
};
