//! Mirror tables with valid checksums whose content breaks the rules.

use mb_core::mirror::{MirrorId, MirrorSettings, MirrorState};
use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::header::{HEADER_LENGTH, Header, Kind};
use crate::publish::write_generation;

fn archive() -> MirrorsArchive {
    let mirror = |id| {
        let name = format!("a name that is longer than sixteen bytes {id}");
        let settings = MirrorSettings { name, country_codes: "FR".into(), ..MirrorSettings::default() };
        MirrorRecord::from(&Mirror { id: MirrorId(id), settings, state: MirrorState::default() })
    };
    MirrorsArchive { mirrors: vec![mirror(1), mirror(4)] }
}

fn write(dir: &Path, archive: &MirrorsArchive) -> Result<MirrorIndex, OpenError> {
    let path = write_generation(dir, Kind::Mirrors, 1, Timestamp(0), archive, &mut |_| Ok(())).unwrap();
    MirrorIndex::open(&path, 1)
}

type Rule = (fn(&mut MirrorsArchive), MirrorsViolation);

#[test]
fn each_broken_rule_is_found() {
    use MirrorsViolation::*;
    let rules: &[Rule] = &[
        (|a| a.mirrors[0].id = 0, Order { id: 0 }),
        (|a| a.mirrors[0].id = 4, Order { id: 4 }),
        (|a| a.mirrors.reverse(), Order { id: 1 }),
        (|a| a.mirrors[1].latitude = f32::NAN, Coordinates { id: 4 }),
        (|a| a.mirrors[1].longitude = f32::INFINITY, Coordinates { id: 4 }),
        (|a| a.mirrors[0].allow_redirects = 3, Choice { id: 1 }),
        (|a| a.mirrors[0].last_successful_sync_protocol = 3, Choice { id: 1 }),
    ];
    for (break_it, violation) in rules {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = archive();
        break_it(&mut archive);
        match write(dir.path(), &archive) {
            Err(OpenError::Mirrors { source, .. }) => assert_eq!(source, *violation),
            other => panic!("{violation:?}: {other:?}"),
        }
    }
}

#[test]
fn no_bit_flipped_under_a_valid_checksum_leads_to_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    drop(write(dir.path(), &archive()).unwrap());
    let good = std::fs::read(dir.path().join("mirrors-1")).unwrap().split_off(HEADER_LENGTH);
    let path = dir.path().join("sealed");
    let (mut accepted, mut refused) = (0, 0);
    for byte in 0..good.len() {
        for bit in 0..8 {
            let mut payload = good.clone();
            payload[byte] ^= 1 << bit;
            let header = Header {
                kind: Kind::Mirrors,
                generation: 1,
                payload_length: payload.len() as u64,
                payload_checksum: xxh3_64(&payload),
                built: Timestamp(0),
            };
            let _ = std::fs::remove_file(&path);
            std::fs::write(&path, [&header.encode()[..], &payload].concat()).unwrap();
            match MirrorIndex::open(&path, 1) {
                Ok(index) => {
                    assert!(index.mirrors().iter().all(|mirror| mirror.id.0 > 0));
                    accepted += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(accepted > 0 && refused > 0, "{accepted} accepted, {refused} refused");
}
