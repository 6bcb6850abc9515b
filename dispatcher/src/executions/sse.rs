//! Streams: the log from any point, then what follows.
