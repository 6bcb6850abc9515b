//! Cancelling: recorded first, then obeyed on whatever path the execution ends.
