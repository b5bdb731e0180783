//! Repository paths: decoding, cleaning, encoding.
