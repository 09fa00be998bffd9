//! The names in a packed file: that of the source, and the classes.

use super::format::Fault;

/// The names as they stand in a file.
pub(super) fn to_bytes(source: &str, classes: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_text(&mut bytes, source);
    bytes.extend((classes.len() as u32).to_le_bytes());
    for class in classes {
        push_text(&mut bytes, class);
    }
    bytes
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// The source's name and the classes' names.
pub(super) fn read(bytes: &[u8]) -> Result<(String, Vec<String>), Fault> {
    let fault = |found: &str| Fault::damaged("names of the source and the classes", found);
    let mut rest = bytes;
    let source = take_text(&mut rest).map_err(fault)?;
    let count = take_number(&mut rest).map_err(fault)?;
    let mut classes = Vec::new();
    for _ in 0..count {
        classes.push(take_text(&mut rest).map_err(fault)?);
    }
    if !rest.is_empty() {
        return Err(fault("more bytes than names"));
    }
    Ok((source, classes))
}

fn take_number(rest: &mut &[u8]) -> Result<u32, &'static str> {
    let (number, behind) = rest.split_first_chunk().ok_or("an end within them")?;
    *rest = behind;
    Ok(u32::from_le_bytes(*number))
}

fn take_text(rest: &mut &[u8]) -> Result<String, &'static str> {
    let length = take_number(rest)? as usize;
    let (text, behind) = rest.split_at_checked(length).ok_or("an end within them")?;
    *rest = behind;
    let text = str::from_utf8(text).map_err(|_| "one that is not UTF-8")?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_no_cut_goes_unnoticed() {
        let classes = ["Ärmel".to_owned(), String::new(), "T-shirt/top".to_owned()];
        let bytes = to_bytes("a set", &classes);
        assert_eq!(bytes.len(), 4 + 5 + 4 + 4 + 6 + 4 + 4 + 11);
        assert_eq!(
            read(&bytes).unwrap(),
            ("a set".to_owned(), classes.to_vec())
        );
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut]).is_err(), "{cut}");
        }
        assert!(read(&[&bytes[..], &[0]].concat()).is_err());
        // A claim of 4 billion names costs nothing.
        assert!(read(&[0, 0, 0, 0, 255, 255, 255, 255]).is_err());
    }
}
