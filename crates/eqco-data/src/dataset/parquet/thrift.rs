//! As much of Thrift's compact protocol as reading Parquet's headers needs.
//!
//! Memory grows with what is there, never with what is claimed: lengths are checked against the bytes that are left.

/// How deep structs that nobody asked for may lie in each other.
const MOST_NESTED: usize = 32;

/// Why something cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The bytes end too early; with more of them it might go on.
    Ended,
    /// What is there is not Thrift.
    Malformed(&'static str),
}

/// The type of a field or of a list's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A field's value is in its header, an element's in a byte.
    Bool(bool),
    Byte,
    I16,
    I32,
    I64,
    Double,
    Binary,
    List,
    Map,
    Struct,
    Uuid,
}

impl Kind {
    fn of(code: u8) -> Result<Self, Fault> {
        Ok(match code {
            1 => Kind::Bool(true),
            2 => Kind::Bool(false),
            3 => Kind::Byte,
            4 => Kind::I16,
            5 => Kind::I32,
            6 => Kind::I64,
            7 => Kind::Double,
            8 => Kind::Binary,
            9 | 10 => Kind::List,
            11 => Kind::Map,
            12 => Kind::Struct,
            13 => Kind::Uuid,
            _ => return Err(Fault::Malformed("a type that Thrift does not have")),
        })
    }
}

/// Reads from the front of a slice.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes that are left.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Fault::Ended)?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        Ok(self.take(1)?[0])
    }

    fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Fault::Malformed("a number of more than 64 bits"))
    }

    pub(super) fn i64(&mut self) -> Result<i64, Fault> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub(super) fn i32(&mut self) -> Result<i32, Fault> {
        let value = self.i64()?;
        i32::try_from(value).map_err(|_| Fault::Malformed("a number of more than 32 bits"))
    }

    pub(super) fn binary(&mut self) -> Result<&'a [u8], Fault> {
        let count = self.varint()?;
        self.take(usize::try_from(count).map_err(|_| Fault::Ended)?)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Fault> {
        str::from_utf8(self.binary()?).map_err(|_| Fault::Malformed("a text that is not UTF-8"))
    }

    /// The next field of a struct: its number and type; `None` behind the last. `last` is the number before, at first 0.
    pub(super) fn field(&mut self, last: &mut i16) -> Result<Option<(i16, Kind)>, Fault> {
        let header = self.byte()?;
        if header == 0 {
            return Ok(None);
        }
        let step = i16::from(header >> 4);
        let number = match step {
            0 => i16::try_from(self.i64()?).ok(),
            step => last.checked_add(step),
        };
        *last = number.ok_or(Fault::Malformed("a field number of more than 16 bits"))?;
        Ok(Some((*last, Kind::of(header & 0x0f)?)))
    }

    /// The type and number of a list's elements. There are no more of them than bytes left, since each takes one at least.
    pub(super) fn list(&mut self) -> Result<(Kind, usize), Fault> {
        let header = self.byte()?;
        let count = match header >> 4 {
            15 => usize::try_from(self.varint()?).map_err(|_| Fault::Ended)?,
            count => usize::from(count),
        };
        if count > self.rest.len() {
            return Err(Fault::Ended);
        }
        // Some writers give an empty list no type.
        let kind = if count == 0 {
            Kind::Byte
        } else {
            Kind::of(header & 0x0f)?
        };
        Ok((kind, count))
    }

    /// The structs of a list of at most `most`, each read by `read`.
    pub(super) fn structs<T>(
        &mut self,
        most: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let (kind, count) = self.list()?;
        if count > 0 && kind != Kind::Struct {
            return Err(Fault::Malformed("a list of something else than structs"));
        }
        if count > most {
            return Err(Fault::Malformed("a list of more than anyone writes"));
        }
        let mut found = Vec::new();
        for _ in 0..count {
            found.push(read(self)?);
        }
        Ok(found)
    }

    /// Passes over a field of type `kind`.
    pub(super) fn skip(&mut self, kind: Kind) -> Result<(), Fault> {
        self.skip_nested(kind, MOST_NESTED)
    }

    fn skip_nested(&mut self, kind: Kind, deeper: usize) -> Result<(), Fault> {
        let Some(deeper) = deeper.checked_sub(1) else {
            return Err(Fault::Malformed("structs too deep in each other"));
        };
        match kind {
            Kind::Bool(_) => Ok(()),
            Kind::Byte => self.take(1).map(drop),
            Kind::I16 | Kind::I32 | Kind::I64 => self.varint().map(drop),
            Kind::Double => self.take(8).map(drop),
            Kind::Uuid => self.take(16).map(drop),
            Kind::Binary => self.binary().map(drop),
            Kind::Struct => {
                let mut last = 0;
                while let Some((_, kind)) = self.field(&mut last)? {
                    self.skip_nested(kind, deeper)?;
                }
                Ok(())
            }
            Kind::List => {
                let (kind, count) = self.list()?;
                (0..count).try_for_each(|_| self.skip_element(kind, deeper))
            }
            Kind::Map => self.skip_map(deeper),
        }
    }

    fn skip_map(&mut self, deeper: usize) -> Result<(), Fault> {
        let count = self.varint()?;
        if count == 0 {
            return Ok(());
        }
        let kinds = self.byte()?;
        let (key, value) = (Kind::of(kinds >> 4)?, Kind::of(kinds & 0x0f)?);
        (0..count).try_for_each(|_| {
            self.skip_element(key, deeper)?;
            self.skip_element(value, deeper)
        })
    }

    fn skip_element(&mut self, kind: Kind, deeper: usize) -> Result<(), Fault> {
        match kind {
            Kind::Bool(_) => self.take(1).map(drop),
            kind => self.skip_nested(kind, deeper),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_numbers_and_texts_are_read() {
        // Field 1 = -3, field 2 = "ab", a step of 20 to field 22 = 300, then the end.
        let bytes = [0x15, 5, 0x18, 2, b'a', b'b', 0x06, 44, 0xd8, 4, 0];
        let (mut reader, mut last) = (Reader::new(&bytes), 0);
        assert_eq!(reader.field(&mut last), Ok(Some((1, Kind::I32))));
        assert_eq!(reader.i32(), Ok(-3));
        assert_eq!(reader.field(&mut last), Ok(Some((2, Kind::Binary))));
        assert_eq!(reader.text(), Ok("ab"));
        assert_eq!(reader.field(&mut last), Ok(Some((22, Kind::I64))));
        assert_eq!(reader.i64(), Ok(300));
        assert_eq!(reader.field(&mut last), Ok(None));
        assert_eq!(reader.left(), 0);
    }

    #[test]
    fn claims_beyond_the_bytes_are_refused() {
        let billions = [0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3];
        assert_eq!(Reader::new(&billions).binary(), Err(Fault::Ended));
        let list = [0xfc, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
        assert_eq!(Reader::new(&list).list(), Err(Fault::Ended));
        let read = Reader::new(&list).structs(9, |reader| reader.skip(Kind::Struct));
        assert_eq!(read, Err(Fault::Ended));
        // Three empty structs.
        let structs =
            |most| Reader::new(&[0x3c, 0, 0, 0]).structs(most, |reader| reader.skip(Kind::Struct));
        assert_eq!(structs(3).map(|found| found.len()), Ok(3));
        assert!(matches!(structs(2), Err(Fault::Malformed(_))));
        let malformed = |bytes: &[u8]| matches!(Reader::new(bytes).i32(), Err(Fault::Malformed(_)));
        assert!(malformed(&[0xff; 11]) && malformed(&[0xff, 0xff, 0xff, 0xff, 0x7f]));
    }

    #[test]
    fn what_nobody_asks_for_is_passed_over_but_not_without_end() {
        // A struct with a map of bool to text, a list of two bools, a double and a struct within.
        let bytes = [
            0x1b, 1, 0x18, 1, 1, b'x', 0x19, 0x21, 1, 2, 0x17, 0, 0, 0, 0, 0, 0, 0, 0, 0x1c, 0, 0,
            9,
        ];
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.skip(Kind::Struct), Ok(()));
        assert_eq!(reader.left(), 1);
        let nested = [0x1c; 100_000];
        assert!(matches!(
            Reader::new(&nested).skip(Kind::Struct),
            Err(Fault::Malformed(_))
        ));
    }
}
