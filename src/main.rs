//! argv in, `ExitCode` out.
fn main() {}
