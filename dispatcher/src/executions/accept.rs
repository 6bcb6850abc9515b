//! Accepting a request: one transaction writes everything that an execution is.
