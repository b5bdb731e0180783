//! Request bodies, which no request needs: they are dropped, up to a limit, to reach the next request.
//!
//! The decoder keeps a few numbers and no bytes: what it was given once it does not need again, and it looks at each byte of
//! the framing once and at no byte of the data.

use super::request::Rejection;

/// Most bytes of a request's body that are dropped; a longer one is refused with 413.
pub const MAX_BODY: u64 = 64 * 1024;
/// Most digits of a chunk's size: those of a 64-bit number.
pub const MAX_CHUNK_DIGITS: u8 = 16;
/// Most bytes between a chunk's size and the end of its line: white space and extensions, which mean nothing here.
pub const MAX_CHUNK_EXTENSION: u8 = 64;
/// Most bytes of the trailer fields of a body, line ends included.
pub const MAX_TRAILERS: u16 = 4 * 1024;

/// What is still to come of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    None,
    /// This many more bytes.
    Length(u64),
    /// Chunks (RFC 9112, section 7.1).
    Chunked(Chunks),
}

/// The place in a chunked body up to which it was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunks {
    state: State,
    /// Sizes of all chunks so far.
    total: u64,
    /// Bytes of the trailer fields so far.
    trailers: u16,
}

/// What comes next in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A chunk's size, of which so many digits have come, or what ends it.
    Size { size: u64, digits: u8 },
    /// White space or an extension after the size: `named` once a semicolon has come.
    Extension { size: u64, length: u8, named: bool },
    /// The line feed that ends the line of a chunk's size.
    SizeEnd { size: u64 },
    /// So many bytes of data, at least one.
    Data(u64),
    /// The carriage return behind the data.
    DataEnd,
    /// The line feed behind that.
    DataLineFeed,
    /// A trailer field, or the empty line that ends the body.
    TrailerStart,
    /// The rest of a trailer field's name, or its colon.
    TrailerName,
    /// The rest of a trailer field's value, or the carriage return behind it.
    TrailerValue,
    /// The line feed that ends a trailer field.
    TrailerEnd,
    /// The line feed that ends the body.
    End,
}

impl Default for State {
    fn default() -> State {
        State::Size { size: 0, digits: 0 }
    }
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
            (None, true) => Ok(Body::Chunked(Chunks::default())),
            (Some(length), false) if length > MAX_BODY => Err(Rejection::BodyTooLarge),
            (None | Some(0), false) => Ok(Body::None),
            (Some(length), false) => Ok(Body::Length(length)),
        }
    }
}

impl Body {
    /// Drops from the start of `bytes` what belongs to the body and returns how much that was. When the body's end was
    /// reached, `self` is [`Body::None`]; otherwise all of `bytes` was dropped, and more are needed.
    ///
    /// # Errors
    /// The chunks are malformed, or one of the limits is exceeded: [`MAX_BODY`] or [`MAX_TRAILERS`] make it
    /// [`Rejection::BodyTooLarge`]. Where that is found does not depend on the pieces in which the body arrives.
    pub fn skip(&mut self, bytes: &[u8]) -> Result<usize, Rejection> {
        match self {
            Body::None => Ok(0),
            Body::Length(left) => {
                let taken = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left = left.saturating_sub(taken as u64);
                if *left == 0 {
                    *self = Body::None;
                }
                Ok(taken)
            }
            Body::Chunked(chunks) => {
                let (taken, is_over) = chunks.skip(bytes)?;
                if is_over {
                    *self = Body::None;
                }
                Ok(taken)
            }
        }
    }
}

impl Chunks {
    /// The same as [`Body::skip`], and whether the end was reached.
    fn skip(&mut self, bytes: &[u8]) -> Result<(usize, bool), Rejection> {
        let mut rest = bytes;
        let taken = |rest: &[u8]| bytes.len().saturating_sub(rest.len());
        loop {
            if let State::Data(left) = self.state {
                let part = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                rest = rest.get(part..).unwrap_or_default();
                self.state = match left.saturating_sub(part as u64) {
                    0 => State::DataEnd,
                    left => State::Data(left),
                };
            }
            let Some((&byte, behind)) = rest.split_first() else { return Ok((taken(rest), false)) };
            rest = behind;
            if self.state == State::End && byte == b'\n' {
                return Ok((taken(rest), true));
            }
            self.state = self.next(byte)?;
        }
    }

    /// The state behind `byte`, which is neither data nor the end of the body.
    fn next(&mut self, byte: u8) -> Result<State, Rejection> {
        Ok(match (self.state, byte) {
            (State::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                if digits == MAX_CHUNK_DIGITS {
                    return Err(Rejection::Malformed);
                }
                // It has room for that many digits.
                State::Size { size: size << 4 | u64::from(digit), digits: digits.saturating_add(1) }
            }
            (State::Size { digits: 0, .. }, _) => return Err(Rejection::Malformed),
            (State::Size { size, .. } | State::Extension { size, .. }, b'\r') => State::SizeEnd { size },
            (State::Size { size, .. }, b' ' | b'\t' | b';') => {
                State::Extension { size, length: 1, named: byte == b';' }
            }
            (State::Extension { size, length, named }, _)
                if length < MAX_CHUNK_EXTENSION
                    && if named { is_text(byte) } else { matches!(byte, b' ' | b'\t' | b';') } =>
            {
                State::Extension { size, length: length.saturating_add(1), named: named || byte == b';' }
            }
            (State::SizeEnd { size: 0 }, b'\n') => State::TrailerStart,
            (State::SizeEnd { size }, b'\n') => {
                self.total = self.total.saturating_add(size);
                if self.total > MAX_BODY {
                    return Err(Rejection::BodyTooLarge);
                }
                State::Data(size)
            }
            (State::DataEnd, b'\r') => State::DataLineFeed,
            (State::DataLineFeed, b'\n') => State::default(),
            (State::TrailerStart, b'\r') => State::End,
            (State::TrailerStart, _) if is_token(byte) => self.in_trailer(State::TrailerName)?,
            (State::TrailerName, b':') => self.in_trailer(State::TrailerValue)?,
            (State::TrailerName, _) if is_token(byte) => self.in_trailer(State::TrailerName)?,
            (State::TrailerValue, b'\r') => self.in_trailer(State::TrailerEnd)?,
            (State::TrailerValue, _) if is_text(byte) => self.in_trailer(State::TrailerValue)?,
            (State::TrailerEnd, b'\n') => self.in_trailer(State::TrailerStart)?,
            _ => return Err(Rejection::Malformed),
        })
    }

    /// Counts a byte of a trailer field, behind which comes `state`.
    fn in_trailer(&mut self, state: State) -> Result<State, Rejection> {
        if self.trailers == MAX_TRAILERS {
            return Err(Rejection::BodyTooLarge);
        }
        self.trailers = self.trailers.saturating_add(1);
        Ok(state)
    }
}

/// Whether a byte may stand in a field's name (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a byte may stand in a field's value or in a chunk extension: no control byte but the tab.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7F)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHUNKED: Body = Body::Chunked(Chunks { state: State::Size { size: 0, digits: 0 }, total: 0, trailers: 0 });

    /// What becomes of a body that comes at once: its length, `None` while it has no end.
    fn whole(bytes: &[u8]) -> Result<Option<usize>, Rejection> {
        let mut body = CHUNKED;
        let taken = body.skip(bytes)?;
        assert!(body == Body::None || taken == bytes.len());
        Ok((body == Body::None).then_some(taken))
    }

    /// The same of one that comes in pieces of these sizes, over and over.
    fn in_pieces(bytes: &[u8], sizes: &[usize]) -> Result<Option<usize>, Rejection> {
        let (mut body, mut taken, mut rest) = (CHUNKED, 0, bytes);
        for &size in sizes.iter().cycle() {
            let (piece, behind) = rest.split_at(size.min(rest.len()));
            taken += body.skip(piece)?;
            if body == Body::None {
                return Ok(Some(taken));
            }
            if behind.is_empty() {
                return Ok(None);
            }
            rest = behind;
        }
        unreachable!("there are sizes")
    }

    /// A simple decoder of whole bodies, to compare with: line by line, by the grammar of RFC 9112, section 7.1.
    fn reference(bytes: &[u8]) -> Result<Option<usize>, ()> {
        let line = |from: usize| {
            let end = bytes[from..].windows(2).position(|pair| pair == b"\r\n").map(|length| from + length);
            end.map(|end| (&bytes[from..end], end + 2))
        };
        let is_value = |text: &[u8]| text.iter().all(|&byte| byte == b'\t' || (byte >= 0x20 && byte != 0x7F));
        let (mut place, mut total) = (0, 0);
        loop {
            let Some((text, behind)) = line(place) else { return Ok(None) };
            let digits = text.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            let (digits, extension) = text.split_at(digits);
            let trimmed = extension.trim_ascii_start();
            if !(1..=16).contains(&digits.len())
                || extension.len() > 64
                || !is_value(extension)
                || !(trimmed.is_empty() || trimmed[0] == b';')
            {
                return Err(());
            }
            let size = u64::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
            place = behind;
            if size == 0 {
                break;
            }
            total += size;
            if total > MAX_BODY {
                return Err(());
            }
            let end = place + size as usize;
            match bytes.get(end..end + 2) {
                Some(b"\r\n") => place = end + 2,
                Some(_) => return Err(()),
                None => return Ok(None),
            }
        }
        let start = place;
        loop {
            let Some((text, behind)) = line(place) else { return Ok(None) };
            if text.is_empty() {
                return if place - start > 4096 { Err(()) } else { Ok(Some(behind)) };
            }
            let Some(colon) = text.iter().position(|&byte| byte == b':') else { return Err(()) };
            let is_name = text[..colon].iter().all(|&b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
            if colon == 0 || !is_name || !is_value(&text[colon + 1..]) {
                return Err(());
            }
            place = behind;
        }
    }

    fn chunk() -> impl Strategy<Value = Vec<u8>> {
        let data = prop::collection::vec(any::<u8>(), 1..40);
        let extension =
            prop_oneof![4 => "", 1 => " {0,70}", 1 => ";[ -~]{0,70}", 1 => "[ \t]{0,3};a=\"[\\x00-~]{0,5}\""];
        (data, extension).prop_map(|(data, extension)| {
            [format!("{:x}{extension}\r\n", data.len()).as_bytes(), &data, b"\r\n"].concat()
        })
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let trailer = prop_oneof![3 => "", 1 => "X-[a-z]{1,9}: [ -~]{0,20}\r\n", 1 => "[\\x00-~]{0,9}\r\n"];
        let chunks = prop::collection::vec(chunk(), 0..6);
        let change = prop::option::weighted(0.4, (any::<prop::sample::Index>(), any::<u8>()));
        (chunks, trailer, change).prop_map(|(chunks, trailer, change)| {
            let mut stream = chunks.concat();
            stream.extend(format!("0\r\n{trailer}\r\nGET /next").bytes());
            if let Some((place, byte)) = change {
                let place = place.index(stream.len());
                stream[place] = byte;
            }
            stream
        })
    }

    proptest! {
        #[test]
        fn any_pieces_come_to_the_same(stream in stream(), sizes in prop::collection::vec(1usize..9, 1..20)) {
            prop_assert_eq!(in_pieces(&stream, &sizes), whole(&stream));
        }

        #[test]
        fn any_bytes_in_any_pieces_come_to_the_same(
            stream in prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b';'), any::<u8>()], 0..80),
            sizes in prop::collection::vec(1usize..9, 1..20),
        ) {
            prop_assert_eq!(in_pieces(&stream, &sizes), whole(&stream));
        }

        /// An end is where a simple decoder sees it. What is malformed may be noticed before its line is complete.
        #[test]
        fn a_simple_decoder_agrees(stream in stream()) {
            match (whole(&stream), reference(&stream)) {
                (Ok(found), Ok(expected)) => prop_assert_eq!(found, expected),
                (Err(_), Err(()) | Ok(None)) => {}
                (found, expected) => prop_assert!(false, "{:?} and not {:?}", found, expected),
            }
        }
    }

    #[test]
    fn chunks_end_where_they_say() {
        let body = b"5\r\nhello\r\nA;name=value\r\n0123456789\r\n000 \t;x\r\nTrailer: x\r\nB:\r\n\r\n";
        assert_eq!(whole(&[body, b"GET /".as_slice()].concat()), Ok(Some(body.len())));
        for end in 0..body.len() {
            assert_eq!(whole(&body[..end]), Ok(None), "{end}");
        }
    }

    /// Chunk data without its line end was accepted, and `;x` without a size taken for the last chunk.
    #[test]
    fn malformed_chunks_are_refused() {
        let cases: [&[u8]; 22] = [
            b"5\r\nhelloX\r\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello\r0",
            b"5\r\nhello\n0\r\n\r\n",
            b";x\r\n\r\n",
            b"\r\n",
            b" 5\r\nhello\r\n",
            b"\n",
            b"xyz\r\n",
            b"+5\r\nhello\r\n",
            b"-1\r\n",
            b"0x5\r\nhello\r\n",
            b"5 5\r\nhello\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5;a\nb\r\nhello\r\n0\r\n\r\n",
            b"5;a\0\r\nhello\r\n0\r\n\r\n",
            b"5\rhello",
            b"0\r\n\r\r\n",
            b"0\r\n no: name\r\n\r\n",
            b"0\r\nno colon\r\n\r\n",
            b"0\r\na: b\nc: d\r\n\r\n",
            b"0\r\n\n",
        ];
        for case in cases {
            assert_eq!(whole(case), Err(Rejection::Malformed), "{}", case.escape_ascii());
        }
    }

    #[test]
    fn limits_hold_exactly() {
        let of_size = |size: usize| [format!("{size:x}\r\n").as_bytes(), &vec![b'a'; size], b"\r\n0\r\n\r\n"].concat();
        assert_eq!(whole(&of_size(65_536)), Ok(Some(65_536 + 14)));
        assert_eq!(whole(&of_size(65_537)), Err(Rejection::BodyTooLarge));
        let small = |count: usize| [b"1\r\na\r\n".repeat(count), b"0\r\n\r\n".to_vec()].concat();
        assert!(matches!(whole(&small(65_536)), Ok(Some(_))));
        assert_eq!(whole(&small(65_537)), Err(Rejection::BodyTooLarge));
        assert_eq!(whole(b"ffffffffffffffff\r\n"), Err(Rejection::BodyTooLarge));
        assert_eq!(whole(b"8000\r\n"), Ok(None));

        let digits = |count: usize| format!("{}\r\n\r\n", "0".repeat(count)).into_bytes();
        assert_eq!(whole(&digits(16)), Ok(Some(20)));
        assert_eq!(whole(&digits(17)), Err(Rejection::Malformed));
        for filler in [" ", ";a"] {
            let extension = |length: usize| format!("0{}\r\n\r\n", &filler.repeat(65)[..length]).into_bytes();
            assert_eq!(whole(&extension(64)), Ok(Some(69)));
            assert_eq!(whole(&extension(65)), Err(Rejection::Malformed), "{filler}");
        }
        let trailers = |length: usize| format!("0\r\na:{}\r\n\r\n", "b".repeat(length - 4)).into_bytes();
        assert_eq!(whole(&trailers(4096)), Ok(Some(4096 + 5)));
        assert_eq!(whole(&trailers(4097)), Err(Rejection::BodyTooLarge));
    }

    #[test]
    fn a_length_counts_down() {
        let mut body = Body::Length(5);
        assert_eq!(body.skip(b"abc"), Ok(3));
        assert_eq!(body.skip(b"defgh"), Ok(2));
        assert_eq!(body, Body::None);
    }
}
