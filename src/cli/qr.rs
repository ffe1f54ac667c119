//! An invoice as a QR code for the terminal.
//!
//! What must stay true: it can be read on dark and on light terminals.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// The code of `invoice`, two modules a character; `None` when it is too long for any code. Upper case, which BOLT11
/// allows, and no scheme: the code gets smaller.
pub(super) fn draw(invoice: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(invoice.to_ascii_uppercase(), EcLevel::L).ok()?;
    let blocks = code.render::<Dense1x2>().build();
    // Black on white, whatever the terminal's own colours are.
    let lines = blocks
        .lines()
        .map(|line| format!("\x1b[38;5;16;48;5;231m{line}\x1b[0m\n"));
    Some(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invoice_fits_a_terminal() {
        let invoice = format!("lnbcrt610u1p{}", "q".repeat(300));
        let drawn = draw(&invoice).unwrap();
        let width = |line: &str| line.chars().filter(|c| " ▀▄█".contains(*c)).count();
        let widths: Vec<usize> = drawn.lines().map(width).collect();
        assert!(
            widths.iter().all(|width| *width == widths[0] && *width < 80),
            "{widths:?}"
        );
        assert!(widths.len() < 40);
        assert!(draw(&"q".repeat(5_000)).is_none());
    }
}
