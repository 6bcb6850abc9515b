//! Expired leases.
