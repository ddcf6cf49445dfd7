//! The host's services, lent across the boundary for one call.
//!
//! Each service crosses by the name of its method with its arguments as bytes. A denial is the
//! same error on both sides.

mod file;
mod lease;
mod lend;
mod lent;

pub(super) use lend::Lender;
pub(super) use lent::Lent;

use std::path::Path;

use crate::error::{Error, Result};
use crate::host::{Change, Command, Ended, HttpPiece, Row};
use crate::wire::{Reader, Wire, from_bytes, put_text};

/// A path as text.
pub(super) fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::outside(path.display(), "expected a path of UTF-8"))
}

fn put_command(command: &Command, out: &mut Vec<u8>) -> Result<()> {
    put_text(&command.program, out);
    command.args.put(out);
    command.env.put(out);
    command.folder.is_some().put(out);
    if let Some(folder) = &command.folder {
        put_text(text(folder)?, out);
    }
    Ok(())
}

fn take_command(r: &mut Reader<'_>) -> Result<Command> {
    let (program, args, env) = (Wire::take(r)?, Wire::take(r)?, Wire::take(r)?);
    let folder = <Option<String> as Wire>::take(r)?.map(Into::into);
    Ok(Command { program, args, env, folder })
}

crate::wire::wire_struct!(Ended { status, output, errors });
crate::wire::wire_struct!(Row { key, value });
crate::wire::wire_enum!(Change, "change",
    0 => Put { 0: row },
    1 => Create { 0: row },
    2 => Remove { 0: key },
);

fn put_piece(piece: &HttpPiece<'_>, out: &mut Vec<u8>) {
    match piece {
        HttpPiece::Start { status, len } => {
            out.push(0);
            u32::from(*status).put(out);
            len.put(out);
        }
        HttpPiece::Bytes(bytes) => {
            out.push(1);
            out.extend_from_slice(bytes);
        }
    }
}

fn take_piece(part: &[u8]) -> Result<HttpPiece<'_>> {
    match part.split_first() {
        Some((0, rest)) => {
            let (code, len): (u32, Option<u64>) = from_bytes(rest)?;
            let status = u16::try_from(code);
            let status = status.map_err(|_| Error::malformed("status", "at most 65535", code))?;
            Ok(HttpPiece::Start { status, len })
        }
        Some((1, bytes)) => Ok(HttpPiece::Bytes(bytes)),
        _ => Err(Error::malformed("part of an HTTP answer", "0 or 1", part.len())),
    }
}
