//! The pieces of an HTML page.

use super::chart::escape;
use super::figure::Figure;

/// How the page looks; nothing is fetched.
const STYLE: &str = include_str!("style.css");

/// What a browser may do for the page: use the style and the pictures that are in it, and nothing else. Should anything on
/// the page ever refer elsewhere, the browser refuses and says so.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// A whole page; `body` is HTML.
pub(crate) fn document(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         {body}</body>\n</html>\n"
    )
}

/// A section with its heading; `body` is HTML.
pub(crate) fn section(id: &str, title: &str, body: &str) -> String {
    format!(
        "<section id=\"{id}\">\n<h2>{}</h2>\n{body}</section>\n",
        escape(title)
    )
}

/// A paragraph of text.
pub(crate) fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", escape(text))
}

/// Whether a cell is a number, perhaps with a unit or a deviation: `–`, `1,024`, `5 min 3 s`, `81.0 ± 1.4 (2)`.
fn is_number(text: &str) -> bool {
    let is_part = |word: &str| {
        matches!(word, "s" | "min" | "h" | "GiB" | "of" | "±" | "–" | "∞")
            || (word.contains(|letter: char| letter.is_ascii_digit())
                && word
                    .chars()
                    .all(|letter| letter.is_ascii_digit() || ",.()−e".contains(letter)))
    };
    !text.is_empty() && text.split(' ').all(is_part)
}

/// A table of texts. Columns whose cells are numbers stand to the right.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let classes: Vec<&str> = (0..head.len())
        .map(|column| {
            let mut cells = rows.iter().filter_map(|row| row.get(column));
            if cells.all(|cell| is_number(cell)) {
                " class=\"number\""
            } else {
                ""
            }
        })
        .collect();
    let row = |cells: Vec<&str>, tag: &str| -> String {
        let cells = cells.iter().zip(&classes);
        let cells: String = cells
            .map(|(cell, class)| format!("<{tag}{class}>{}</{tag}>", escape(cell)))
            .collect();
        format!("<tr>{cells}</tr>\n")
    };
    let body: String = rows
        .iter()
        .map(|cells| row(cells.iter().map(String::as_str).collect(), "td"))
        .collect();
    let head = row(head.to_vec(), "th");
    format!(
        "<div class=\"wide\"><table>\n<thead>{head}</thead>\n<tbody>\n{body}</tbody>\n</table></div>\n"
    )
}

/// Figures side by side where there is room.
pub(crate) fn figures(figures: &[Figure]) -> String {
    let figure = |figure: &Figure| {
        let caption = match &*figure.caption {
            "" => String::new(),
            caption => format!("<figcaption>{}</figcaption>", escape(caption)),
        };
        // The frame is as wide as its picture, so that the caption wraps below it.
        let width = figure.drawing.width().ceil() + 18.0;
        format!(
            "<figure id=\"{}\" style=\"width: {width}px\">{}{caption}</figure>\n",
            figure.stem,
            figure.drawing.inline()
        )
    };
    let figures: String = figures.iter().map(figure).collect();
    format!("<div class=\"figures\">\n{figures}</div>\n")
}

/// Something that unfolds; `body` is HTML.
pub(crate) fn details(summary: &str, body: &str) -> String {
    format!(
        "<details><summary>{}</summary>\n{body}</details>\n",
        escape(summary)
    )
}

/// Text as it is, line by line.
pub(crate) fn preformatted(text: &str) -> String {
    format!("<pre>{}</pre>\n", escape(text))
}

/// A PNG file as an address that holds it.
pub(crate) fn data_address(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", base64(png))
}

/// RFC 4648's encoding with padding. So little that a crate for it would not be less to read.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |place: usize| u32::from(group.get(place).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for letter in 0..4 {
            text.push(match letter <= group.len() {
                true => LETTERS[(bits >> (18 - 6 * letter) & 63) as usize] as char,
                false => '=',
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_rfc_4648() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (text, encoded) in cases {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }

    #[test]
    fn cells_are_escaped_and_numbers_stand_to_the_right() {
        let html = table(
            &["name", "K"],
            &[
                vec!["<b>".into(), "16".into()],
                vec!["1".into(), "–".into()],
            ],
        );
        assert!(
            html.contains("<th>name</th><th class=\"number\">K</th>"),
            "{html}"
        );
        assert!(
            html.contains("<td>&lt;b&gt;</td><td class=\"number\">16</td>"),
            "{html}"
        );
        for text in ["5 min 3 s", "81.00 ± 1.41 (2)", "−0.5", "3e−5", "1 of 2"] {
            assert!(is_number(text), "{text}");
        }
        for text in ["05b1527bad54-dirty", "2,000 images", "", "e"] {
            assert!(!is_number(text), "{text}");
        }
        assert!(document("a<b", "").contains("<title>a&lt;b</title>"));
        assert_eq!(preformatted("a\n<"), "<pre>a\n&lt;</pre>\n");
    }
}
