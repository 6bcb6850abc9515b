//! The body of `POST /execute`: all faults are found at once.
