//! Request bodies, which no request needs: they are read and dropped, up to a limit, to reach the next request.

use super::request::Rejection;

/// Longest request body that is read and dropped.
pub const MAX_BODY: u64 = 64 * 1024;

/// What follows a request head. Kept by the connection until all of it has been dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    None,
    /// This many more bytes.
    Length(u64),
    /// Chunks (RFC 9112, section 7.1).
    Chunked {
        /// Bytes left of the current chunk and its line end; 0 when a chunk's size comes next.
        in_chunk: u64,
        /// Bytes of all chunks so far.
        total: u64,
        /// The last chunk has come; trailer fields and an empty line follow.
        in_trailer: bool,
    },
}

/// The header fields that say where a body ends.
#[derive(Default)]
pub(super) struct Framing {
    length: Option<u64>,
    chunked: bool,
}

impl Framing {
    pub(super) fn content_length(&mut self, value: &[u8]) -> Result<(), Rejection> {
        let value = value.trim_ascii();
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) || self.length.is_some() {
            return Err(Rejection::Malformed);
        }
        // Twenty digits or more are no malformed number, only a huge one.
        let length = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).unwrap_or(u64::MAX);
        self.length = Some(length);
        Ok(())
    }

    pub(super) fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Rejection> {
        if self.chunked || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return Err(Rejection::Malformed);
        }
        self.chunked = true;
        Ok(())
    }

    pub(super) fn body(&self, http_1_1: bool) -> Result<Body, Rejection> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err(Rejection::Malformed),
            (None, true) if !http_1_1 => Err(Rejection::Malformed),
            (None, true) => Ok(Body::Chunked { in_chunk: 0, total: 0, in_trailer: false }),
            (Some(length), false) if length > MAX_BODY => Err(Rejection::BodyTooLarge),
            (None | Some(0), false) => Ok(Body::None),
            (Some(length), false) => Ok(Body::Length(length)),
        }
    }
}

impl Body {
    /// Drops from the start of `bytes` what belongs to the body and returns how much that was. When the body's end was
    /// reached, `self` is [`Body::None`]; otherwise more bytes are needed.
    ///
    /// # Errors
    /// The chunks are malformed, or longer than [`MAX_BODY`].
    pub fn skip(&mut self, bytes: &[u8]) -> Result<usize, Rejection> {
        match self {
            Body::None => Ok(0),
            Body::Length(left) => {
                let taken = (*left).min(bytes.len() as u64);
                *left -= taken;
                if *left == 0 {
                    *self = Body::None;
                }
                Ok(taken as usize)
            }
            Body::Chunked { .. } => self.skip_chunks(bytes),
        }
    }

    fn skip_chunks(&mut self, bytes: &[u8]) -> Result<usize, Rejection> {
        let mut taken = 0;
        while let Body::Chunked { in_chunk, total, in_trailer } = self {
            let rest = &bytes[taken..];
            if *in_chunk > 0 {
                let part = (*in_chunk).min(rest.len() as u64);
                *in_chunk -= part;
                taken += part as usize;
                if *in_chunk > 0 {
                    break;
                }
            } else if *in_trailer {
                let Some(end) = memchr::memchr(b'\n', rest) else {
                    if rest.len() as u64 > MAX_BODY {
                        return Err(Rejection::BodyTooLarge);
                    }
                    break;
                };
                taken += end + 1;
                *total += end as u64 + 1;
                if *total > MAX_BODY {
                    return Err(Rejection::BodyTooLarge);
                }
                if rest[..end].trim_ascii().is_empty() {
                    *self = Body::None;
                }
            } else {
                match httparse::parse_chunk_size(rest) {
                    Ok(httparse::Status::Complete((length, size))) => {
                        taken += length;
                        *total = total.saturating_add(size);
                        if *total > MAX_BODY {
                            return Err(Rejection::BodyTooLarge);
                        }
                        *in_trailer = size == 0;
                        // The chunk's data ends in a line end of its own.
                        *in_chunk = if size == 0 { 0 } else { size + 2 };
                    }
                    Ok(httparse::Status::Partial) => break,
                    Err(_) => return Err(Rejection::Malformed),
                }
            }
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHUNKED: Body = Body::Chunked { in_chunk: 0, total: 0, in_trailer: false };
    const CHUNKS: &[u8] = b"5\r\nhello\r\na;name=value\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";

    proptest! {
        #[test]
        fn chunks_end_at_the_same_byte_however_they_arrive(cuts in prop::collection::vec(1usize..8, 60)) {
            let mut stream = CHUNKS.to_vec();
            stream.extend(b"GET /next");
            let (mut body, mut start, mut end) = (CHUNKED, 0, 0);
            for cut in cuts {
                end = (end + cut).min(stream.len());
                start += body.skip(&stream[start..end]).unwrap();
            }
            prop_assert_eq!(body, Body::None);
            prop_assert_eq!(&stream[start..], b"GET /next");
        }
    }

    #[test]
    fn too_much_and_malformed_are_told_apart() {
        let mut body = CHUNKED;
        assert_eq!(body.skip(b"10001\r\n"), Err(Rejection::BodyTooLarge));
        let mut body = CHUNKED;
        assert_eq!(body.skip(b"xyz\r\n"), Err(Rejection::Malformed));
    }

    #[test]
    fn a_length_counts_down() {
        let mut body = Body::Length(5);
        assert_eq!(body.skip(b"abc"), Ok(3));
        assert_eq!(body.skip(b"defgh"), Ok(2));
        assert_eq!(body, Body::None);
    }
}
