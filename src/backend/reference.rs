//! The oracle: every primitive as plain loops.
