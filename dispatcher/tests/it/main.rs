//! The dispatcher's tests: one binary, one module per feature.

mod tidy;
