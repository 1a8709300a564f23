//! What strangers wrote, made safe to show.

/// The text without anything that a terminal would obey instead of print.
///
/// Names in packets come from whoever sent them, and names of interfaces from whoever owns the
/// network namespace. Control characters, invisible ones and those that change the direction of
/// writing become U+FFFD, and so does what is not UTF-8. Trailing NULs, which many servers send, go.
pub fn printable(bytes: &[u8]) -> String {
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    String::from_utf8_lossy(&bytes[..end])
        .chars()
        .map(|char| if shows(char) { char } else { char::REPLACEMENT_CHARACTER })
        .collect()
}

/// Whether a terminal shows the character as one of its own: what the standard library's
/// `escape_debug` would leave alone or escape only for the sake of quotation.
fn shows(char: char) -> bool {
    matches!(char, '\'' | '"' | '\\') || char.escape_debug().len() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_is_left_alone() {
        for text in
            ["PXEClient:Arch:00000:UNDI:002001", r"Boot\x64\wdsnbp.com", "a \"b\" 'c'", "grüße"]
        {
            assert_eq!(printable(text.as_bytes()), text);
        }
    }

    #[test]
    fn what_a_terminal_would_obey_is_replaced() {
        for text in ["\x1b[2J", "\u{9b}2J", "\r", "\n", "\x7f", "\u{202e}", "\u{200b}", "\u{2028}"]
        {
            let shown = printable(text.as_bytes());
            assert!(shown.starts_with('\u{fffd}'), "{text:?} became {shown:?}");
        }
        assert_eq!(printable(b"a\0b\xffc"), "a\u{fffd}b\u{fffd}c");
    }

    #[test]
    fn trailing_nuls_go() {
        assert_eq!(printable(b"pxelinux.0\0\0"), "pxelinux.0");
        assert_eq!(printable(b"\0\0"), "");
    }
}
