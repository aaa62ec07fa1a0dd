#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use proptest::{collection::vec, option, prelude::*};

use super::*;

fn to_launcher() -> impl Strategy<Value = ToLauncher> {
    let launch = (
        (any::<u16>(), any::<u64>(), ".*", ".*", any::<u64>()),
        (vec(".*", 0..4), vec((".*", ".*"), 0..4), ".*", ".*"),
        (any::<u64>(), any::<u64>(), any::<u64>(), ".*", any::<u32>(), vec(".*", 0..3), any::<bool>()),
    )
        .prop_map(|((version, epoch, launch_id, agent, incarnation), (argv, env, cwd, token), rest)| {
            let (lease_ms, grace_ms, sample_interval_ms, run_dir, ring_bytes, forget, in_container) = rest;
            ToLauncher::Launch(Box::new(Launch {
                version,
                epoch,
                launch_id,
                agent,
                incarnation,
                argv,
                env,
                cwd,
                token,
                lease_ms,
                grace_ms,
                sample_interval_ms,
                run_dir,
                ring_bytes,
                forget,
                in_container,
            }))
        });
    prop_oneof![
        launch,
        (any::<u16>(), any::<u64>(), any::<u64>()).prop_map(|(version, epoch, last_seq)| ToLauncher::Attach(Attach {
            version,
            epoch,
            last_seq
        })),
        any::<u64>().prop_map(|epoch| ToLauncher::Renew { epoch }),
        any::<u64>().prop_map(|seq| ToLauncher::Ack { seq }),
        any::<u64>().prop_map(|grace_ms| ToLauncher::Stop { grace_ms }),
        Just(ToLauncher::Kill),
        Just(ToLauncher::Pause),
        Just(ToLauncher::Resume),
        (any::<u32>(), vec(any::<u8>(), 0..300)).prop_map(|(conn, bytes)| ToLauncher::RelayData { conn, bytes }),
        any::<u32>().prop_map(|conn| ToLauncher::RelayClose { conn }),
        (any::<u32>(), any::<u32>()).prop_map(|(conn, bytes)| ToLauncher::RelayCredit { conn, bytes }),
    ]
}

fn from_launcher() -> impl Strategy<Value = FromLauncher> {
    let stream = prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr)];
    let why = prop_oneof![Just(ExitWhy::Own), Just(ExitWhy::Asked), Just(ExitWhy::LeaseLost)];
    prop_oneof![
        (any::<u16>(), any::<u32>()).prop_map(|(version, pid)| FromLauncher::Hello { version, pid }),
        (any::<u32>(), any::<u64>()).prop_map(|(pid, at_ms)| FromLauncher::Started { pid, at_ms }),
        ".*".prop_map(|message| FromLauncher::StartFailed { message }),
        ((".*", any::<u64>(), option::of(any::<u32>())), (any::<u64>(), any::<[bool; 2]>(), any::<[u64; 3]>()))
            .prop_map(
                |(
                    (agent, incarnation, pid),
                    (started_at_ms, [paused, ending], [ring_first_seq, next_seq, lease_ms]),
                )| {
                    FromLauncher::State(State {
                        agent,
                        incarnation,
                        pid,
                        started_at_ms,
                        paused,
                        ending,
                        ring_first_seq,
                        next_seq,
                        lease_ms,
                    })
                }
            ),
        (any::<u64>(), any::<u64>(), stream, any::<bool>(), vec(any::<u8>(), 0..300)).prop_map(
            |(seq, at_ms, stream, partial, bytes)| FromLauncher::Output(Output { seq, at_ms, stream, partial, bytes })
        ),
        (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(lines, bytes, next_seq)| FromLauncher::Lost {
            lines,
            bytes,
            next_seq
        }),
        (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>()).prop_map(
            |(at_ms, cpu_ms, interval_ms, cpu_interval_ms, rss_bytes, processes)| {
                FromLauncher::Sample(Sample { at_ms, cpu_ms, interval_ms, cpu_interval_ms, rss_bytes, processes })
            }
        ),
        any::<bool>().prop_map(|paused| FromLauncher::Paused { paused }),
        (
            (".*", any::<u64>(), option::of(any::<i32>()), option::of(any::<i32>()), why),
            (option::of(any::<bool>()), any::<u64>(), any::<u32>(), any::<u32>(), any::<u64>())
        )
            .prop_map(|((agent, incarnation, code, signal, why), (oom, at_ms, swept, unswept, last_seq))| {
                FromLauncher::Exit(Exit { agent, incarnation, code, signal, why, oom, at_ms, swept, unswept, last_seq })
            }),
        any::<u32>().prop_map(|conn| FromLauncher::RelayOpen { conn }),
        (any::<u32>(), vec(any::<u8>(), 0..300)).prop_map(|(conn, bytes)| FromLauncher::RelayData { conn, bytes }),
        any::<u32>().prop_map(|conn| FromLauncher::RelayClose { conn }),
        (any::<u32>(), any::<u32>()).prop_map(|(conn, bytes)| FromLauncher::RelayCredit { conn, bytes }),
        (any::<u32>(), any::<u32>()).prop_map(|(killed, left)| FromLauncher::Swept { killed, left }),
        prop::collection::vec(".*", 0..4).prop_map(|launch_ids| FromLauncher::Listed { launch_ids }),
        (".*", ".*").prop_map(|(code, message)| FromLauncher::Refused { code, message }),
    ]
}

/// Feeds `bytes` cut at the given lengths and takes every frame.
fn decode_cut<T: Frame>(mut decoder: Decoder<T>, mut bytes: &[u8], cuts: &[usize]) -> Result<Vec<T>, ChannelError> {
    let mut frames = Vec::new();
    let mut cuts = cuts.iter().cycle();
    while !bytes.is_empty() {
        let cut = cuts.next().map_or(bytes.len(), |cut| (*cut).clamp(1, bytes.len()));
        decoder.push(&bytes[..cut]);
        bytes = &bytes[cut..];
        while let Some(frame) = decoder.next()? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

proptest! {
    #[test]
    fn what_the_daemon_says_comes_back(frames in vec(to_launcher(), 1..6), cuts in vec(1usize..200, 1..8)) {
        let mut bytes = Vec::new();
        for frame in &frames {
            encode(frame, &mut bytes).unwrap();
        }
        prop_assert_eq!(decode_cut(Decoder::<ToLauncher>::new(), &bytes, &cuts).unwrap(), frames);
    }

    #[test]
    fn what_a_launcher_says_comes_back(frames in vec(from_launcher(), 1..6), cuts in vec(1usize..200, 1..8)) {
        let mut bytes = MAGIC.to_vec();
        for frame in &frames {
            encode(frame, &mut bytes).unwrap();
        }
        prop_assert_eq!(decode_cut(Decoder::<FromLauncher>::expecting_magic(), &bytes, &cuts).unwrap(), frames);
    }

    #[test]
    fn random_bytes_never_panic_and_never_grow_the_buffer(bytes in vec(any::<u8>(), 0..4000), cuts in vec(1usize..200, 1..8)) {
        let _ = decode_cut(Decoder::<ToLauncher>::new(), &bytes, &cuts);
        let _ = decode_cut(Decoder::<FromLauncher>::new(), &bytes, &cuts);
        let _ = decode_cut(Decoder::<FromLauncher>::expecting_magic(), &bytes, &cuts);
    }

    /// A right length and any kind in front of random bytes reaches every payload parser.
    #[test]
    fn random_payloads_never_panic(kind in any::<u8>(), payload in vec(any::<u8>(), 0..100)) {
        let _ = ToLauncher::read(kind, &payload);
        let _ = FromLauncher::read(kind, &payload);
    }

    #[test]
    fn a_flipped_byte_never_panics(frame in from_launcher(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut bytes = Vec::new();
        encode(&frame, &mut bytes).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let _ = decode_cut(Decoder::<FromLauncher>::new(), &bytes, &[7]);
    }

    #[test]
    fn a_ready_made_header_is_what_encode_writes(
        seq in any::<u64>(), at_ms in any::<u64>(), partial in any::<bool>(), bytes in vec(any::<u8>(), 0..300)
    ) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut encoded = Vec::new();
            encode(&FromLauncher::Output(Output { seq, at_ms, stream, partial, bytes: bytes.clone() }), &mut encoded).unwrap();
            let mut made = output_header(seq, at_ms, stream, partial, u16::try_from(bytes.len()).unwrap()).to_vec();
            made.extend_from_slice(&bytes);
            prop_assert_eq!(encoded, made);
        }
    }
}

#[test]
fn a_start_error_is_no_magic_at_its_first_byte() {
    let mut decoder = Decoder::<FromLauncher>::expecting_magic();
    decoder.push(b"e");
    let error = decoder.next().unwrap_err();
    assert_eq!(error, ChannelError::NoMagic { found: b"e".to_vec() });
    assert_eq!(error.to_string(), "not a launcher: the first bytes are e");
}

#[test]
fn half_a_magic_waits_for_the_rest() {
    let mut decoder = Decoder::<FromLauncher>::expecting_magic();
    decoder.push(&MAGIC[..2]);
    assert_eq!(decoder.next(), Ok(None));
    decoder.push(&MAGIC[2..]);
    assert_eq!(decoder.next(), Ok(None));
    let mut bytes = Vec::new();
    encode(&FromLauncher::RelayOpen { conn: 7 }, &mut bytes).unwrap();
    decoder.push(&bytes);
    assert_eq!(decoder.next(), Ok(Some(FromLauncher::RelayOpen { conn: 7 })));
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_its_bytes_come() {
    let mut decoder = Decoder::<ToLauncher>::new();
    let len = u32::try_from(FRAME_LEN_MAX + 1).unwrap();
    decoder.push(&len.to_le_bytes());
    assert_eq!(decoder.next(), Err(ChannelError::TooLong { len: FRAME_LEN_MAX + 1 }));
}

#[test]
fn a_length_of_zero_is_refused() {
    let mut decoder = Decoder::<ToLauncher>::new();
    decoder.push(&[0; 4]);
    assert_eq!(decoder.next(), Err(ChannelError::Empty));
}

#[test]
fn an_error_is_final() {
    let mut decoder = Decoder::<ToLauncher>::new();
    decoder.push(&[1, 0, 0, 0, 77]);
    assert_eq!(decoder.next(), Err(ChannelError::UnknownKind { kind: 77 }));
    let mut good = Vec::new();
    encode(&ToLauncher::Kill, &mut good).unwrap();
    decoder.push(&good);
    assert_eq!(decoder.next(), Err(ChannelError::UnknownKind { kind: 77 }));
}

#[test]
fn a_message_that_fits_no_frame_leaves_the_buffer_as_it_was() {
    let mut out = b"before".to_vec();
    let error = encode(&ToLauncher::RelayData { conn: 1, bytes: vec![0; FRAME_LEN_MAX] }, &mut out).unwrap_err();
    assert!(matches!(error, ChannelError::TooLong { .. }), "{error}");
    assert_eq!(out, b"before");
}

#[test]
fn the_longest_frame_passes() {
    let frame = ToLauncher::RelayData { conn: 1, bytes: vec![9; FRAME_LEN_MAX - 5] };
    let mut bytes = Vec::new();
    encode(&frame, &mut bytes).unwrap();
    assert_eq!(decode_cut(Decoder::<ToLauncher>::new(), &bytes, &[65_536]).unwrap(), vec![frame]);
}

#[test]
fn a_field_of_a_later_version_is_passed_over() {
    let payload = br#"{"epoch":3,"later":true}"#;
    assert_eq!(ToLauncher::read(3, payload), Ok(ToLauncher::Renew { epoch: 3 }));
}

#[test]
fn an_order_without_launches_to_forget_is_that_of_an_earlier_daemon() {
    let payload = br#"{"version":1,"epoch":3,"launch_id":"a","agent":"s/a","incarnation":1,"argv":["x"],"env":[["A","b"]],"cwd":"/",
        "token":"t","lease_ms":1,"grace_ms":2,"sample_interval_ms":3,"run_dir":"/run","ring_bytes":4}"#;
    let frame = ToLauncher::read(1, payload).unwrap();
    let ToLauncher::Launch(launch) = &frame else { panic!("{frame:?}") };
    assert_eq!(launch.forget, [] as [&str; 0]);
    assert!(!launch.in_container);
    let mut written = Vec::new();
    frame.write(&mut written).unwrap();
    let written = String::from_utf8(written).unwrap();
    assert!(
        !written.contains("forget") && !written.contains("in_container"),
        "and it looks like one to an earlier launcher"
    );
}

#[test]
fn an_end_without_a_word_on_memory_is_that_of_an_earlier_launcher() {
    let payload = br#"{"agent":"s/a","incarnation":1,"code":null,"signal":9,"why":"own","at_ms":5,"swept":0,"unswept":0,"last_seq":0}"#;
    let frame = FromLauncher::read(137, payload).unwrap();
    let FromLauncher::Exit(exit) = &frame else { panic!("{frame:?}") };
    assert_eq!(exit.oom, None);
}

#[test]
fn a_crossed_pipe_is_an_unknown_kind() {
    let mut bytes = Vec::new();
    encode(&ToLauncher::Renew { epoch: 1 }, &mut bytes).unwrap();
    let error = decode_cut(Decoder::<FromLauncher>::new(), &bytes, &[64]).unwrap_err();
    assert_eq!(error, ChannelError::UnknownKind { kind: 3 });
}
