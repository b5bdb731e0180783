//! Shared scan results: the facts and the list of blocks of a mirror in a hash of its own (`MB_SCAN_<id>`), the blocks of all
//! mirrors in one (`MB_SCAN_BLOCKS`), since most mirrors have most blocks in common: four hundred complete mirrors take the
//! memory of about one. How many results list a block is counted (`MB_SCAN_USES`), and one that none lists any more goes.
//!
//! Blocks come first, in writes of bounded size; then one script puts the new list in place of the old. It refuses a list
//! with a block that is not there, so that nobody ever sees half a result. A node that dies in between leaves blocks behind
//! that no result lists: its next scan, most likely, finds them useful.

use std::sync::LazyLock;

use redis::Script;

use super::connection::Session;
use super::failure::Failure;
use super::{keys, records};
use crate::mirror::MirrorId;
use crate::store::{ScanBlockKey, ScanGeneration, SharedScan, SharedScanHead, StoreError};
use crate::time::Timestamp;

/// Version of the hash of a mirror and of the blocks. A result of another version is left alone, and scanned anew.
const FORMAT: u64 = 1;

/// Blocks written by one command have so many bytes, or are one: Redis copies a megabyte in about a millisecond.
const WRITE_BYTES: usize = 1 << 20;

/// Blocks read at a time, of some ten kilobytes each.
const READ_BATCH: usize = 64;

/// A Lua function that takes a list of blocks out of use. Arguments: the list, `MB_SCAN_BLOCKS`, `MB_SCAN_USES`.
pub(super) const RELEASE: &str = "
    local function release(list, blocks, uses)
        for i = 1, #list, 16 do
            local block = string.sub(list, i, i + 15)
            if redis.call('HINCRBY', uses, block, -1) <= 0 then
                redis.call('HDEL', uses, block)
                redis.call('HDEL', blocks, block)
            end
        end
    end
";

/// Replaces a result if all its blocks are there. KEYS: MIRRORS, MB_SCAN_id, MB_SCAN_BLOCKS, MB_SCAN_USES. ARGV: id, list of
/// blocks, fields and values. Returns whether the mirror exists, and the blocks that do not.
static SHARE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "{RELEASE}
        if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return {{0, {{}}}} end
        local missing = {{}}
        for i = 1, #ARGV[2], 16 do
            local block = string.sub(ARGV[2], i, i + 15)
            if redis.call('HEXISTS', KEYS[3], block) == 0 then missing[#missing + 1] = block end
        end
        if #missing > 0 then return {{1, missing}} end
        for i = 1, #ARGV[2], 16 do redis.call('HINCRBY', KEYS[4], string.sub(ARGV[2], i, i + 15), 1) end
        if redis.call('TYPE', KEYS[2]).ok == 'hash' then
            release(redis.call('HGET', KEYS[2], 'blocks') or '', KEYS[3], KEYS[4])
        end
        redis.call('DEL', KEYS[2])
        redis.call('HSET', KEYS[2], 'blocks', ARGV[2], unpack(ARGV, 3))
        return {{1, {{}}}}"
    ))
});

/// What the nodes share of `ids`, in the same order.
pub(super) fn heads(session: &mut Session, ids: &[MirrorId]) -> Result<Vec<Option<SharedScanHead>>, Failure> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut pipeline = redis::pipe();
    for &id in ids {
        pipeline.cmd("HMGET").arg(keys::scan(id)).arg("generation").arg("started");
    }
    // A key of another type, or with a text that is none, is no result that can be read.
    let rows: Vec<redis::RedisResult<(Option<String>, Option<String>)>> =
        session.query_all(pipeline.ignore_errors())?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let (generation, started) = row.ok()?;
            Some(SharedScanHead {
                generation: generation_of(&generation?)?,
                started: Timestamp(started?.parse().ok()?),
            })
        })
        .collect())
}

/// The shared result of a mirror, without the data of its blocks.
pub(super) fn read(session: &mut Session, id: MirrorId) -> Result<Option<SharedScan>, Failure> {
    let fields: records::Fields = session.query(redis::cmd("HGETALL").arg(keys::scan(id)))?;
    if fields.is_empty() {
        return Ok(None);
    }
    read_fields(&fields).map(Some).map_err(|what| StoreError::DamagedScan { mirror: id, what }.into())
}

fn read_fields(fields: &records::Fields) -> Result<SharedScan, String> {
    let text = |field: &str| fields.get(field.as_bytes()).and_then(|value| std::str::from_utf8(value).ok());
    let format = text("format").unwrap_or_default();
    if format != FORMAT.to_string() {
        return Err(format!("its format is {format:?}, this program reads {FORMAT}"));
    }
    let lacks = |field: &str| format!("its field `{field}` is missing or damaged");
    let (list, rest) = fields.get(b"blocks".as_slice()).ok_or_else(|| lacks("blocks"))?.as_chunks();
    if !rest.is_empty() {
        return Err(lacks("blocks"));
    }
    let generation = text("generation").and_then(generation_of).ok_or_else(|| lacks("generation"))?;
    let scan = SharedScan {
        started: Timestamp(number(text("started")).ok_or_else(|| lacks("started"))?),
        protocol: records::scan_protocol(number(text("protocol")).ok_or_else(|| lacks("protocol"))?),
        precision_ns: number(text("precision")).ok_or_else(|| lacks("precision"))?,
        timezone_offset_ms: number(text("tzoffset")).ok_or_else(|| lacks("tzoffset"))?,
        files: number(text("files")).ok_or_else(|| lacks("files"))?,
        blocks: list.to_vec(),
    };
    if scan.generation() != generation {
        return Err(format!("it is called {generation} and its content is that of {}", scan.generation()));
    }
    Ok(scan)
}

fn number<T: std::str::FromStr>(text: Option<&str>) -> Option<T> {
    text?.parse().ok()
}

fn generation_of(text: &str) -> Option<ScanGeneration> {
    u64::from_str_radix(text, 16).ok().map(ScanGeneration)
}

/// Hands the data of those of `blocks` that are there to `visit`.
pub(super) fn visit_blocks(
    session: &mut Session,
    blocks: &[ScanBlockKey],
    visit: &mut dyn FnMut(ScanBlockKey, Vec<u8>),
) -> Result<(), Failure> {
    for batch in blocks.chunks(READ_BATCH) {
        let mut command = redis::cmd("HMGET");
        command.arg(keys::SCAN_BLOCKS);
        for block in batch {
            command.arg(block);
        }
        let data: Vec<Option<Vec<u8>>> = session.query(&command)?;
        for (block, data) in batch.iter().zip(data) {
            if let Some(data) = data {
                visit(*block, data);
            }
        }
    }
    Ok(())
}

/// Writes the data of blocks.
pub(super) fn add_blocks(session: &mut Session, blocks: &[(ScanBlockKey, Vec<u8>)]) -> Result<(), Failure> {
    let mut rest = blocks;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fitting = rest.iter().take_while(|(_, data)| {
            bytes += data.len();
            bytes <= WRITE_BYTES
        });
        let (batch, after) = rest.split_at(fitting.count().max(1));
        let mut command = redis::cmd("HSET");
        command.arg(keys::SCAN_BLOCKS);
        for (block, data) in batch {
            command.arg(block).arg(data);
        }
        session.query::<()>(&command)?;
        rest = after;
    }
    Ok(())
}

/// Replaces the shared result of a mirror, unless blocks of it are missing, which are returned.
pub(super) fn share(session: &mut Session, id: MirrorId, scan: &SharedScan) -> Result<Vec<ScanBlockKey>, Failure> {
    let mut script = SHARE.key(keys::MIRRORS);
    script.key(keys::scan(id)).key(keys::SCAN_BLOCKS).key(keys::SCAN_USES);
    script.arg(id.0).arg(scan.blocks.as_flattened());
    script.arg("format").arg(FORMAT);
    script.arg("generation").arg(scan.generation().to_string());
    script.arg("started").arg(scan.started.0);
    script.arg("protocol").arg(records::scan_protocol_number(scan.protocol));
    script.arg("precision").arg(scan.precision_ns);
    script.arg("tzoffset").arg(scan.timezone_offset_ms);
    script.arg("files").arg(scan.files);
    match session.run(&script)? {
        (0, _) => Err(StoreError::UnknownMirror(id).into()),
        (_, missing) => Ok(missing),
    }
}

/// Forgets the data of blocks, whoever lists them.
pub(super) fn discard_blocks(session: &mut Session, blocks: &[ScanBlockKey]) -> Result<(), Failure> {
    let mut command = redis::cmd("HDEL");
    command.arg(keys::SCAN_BLOCKS);
    for block in blocks {
        command.arg(block);
    }
    if blocks.is_empty() { Ok(()) } else { session.query(&command) }
}
