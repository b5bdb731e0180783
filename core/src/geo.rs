//! From a network address to a place and an autonomous system.
