//! Groups of threads over TCP on this machine.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use candle_core::{Device, Result, Tensor};

use super::*;

/// A port that was free a moment ago.
fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn rendezvous(rank: usize, size: usize, port: u16) -> Rendezvous {
    Rendezvous {
        rank,
        size,
        host: "localhost".into(),
        port,
        wait: Duration::from_secs(20),
        patience: Duration::from_secs(20),
    }
}

/// What `work` gives on each of `size` ranks.
fn on_ranks<R: Send>(size: usize, work: impl Fn(ProcessGroup) -> R + Sync) -> Vec<R> {
    let (port, work) = (port(), &work);
    thread::scope(|scope| {
        let ranks: Vec<_> = (0..size)
            .map(|rank| {
                scope
                    .spawn(move || work(ProcessGroup::join(&rendezvous(rank, size, port)).unwrap()))
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

#[test]
fn sums_run_in_the_order_of_ranks_and_are_the_same_everywhere() {
    // 1 and −1 cancel after 2^−24 is lost beside 1, or before: the order shows.
    let values = [1.0, f32::EPSILON / 4.0, -1.0];
    let found = on_ranks(3, |group| -> Result<_> {
        let tensors = [
            Tensor::new(&[[values[group.rank()], 1.0]], &Device::Cpu)?,
            Tensor::full(group.rank() as f32, 2_000_001, &Device::Cpu)?,
        ];
        group.average(&tensors)?;
        let large = tensors[1].to_vec1::<f32>()?;
        assert!(large.iter().all(|value| *value == 1.0));
        group.sum(&tensors[..1])?;
        tensors[0].to_vec2::<f32>()
    });
    let ordered = (values[0] + values[1]) + values[2];
    assert_eq!(ordered, 0.0);
    assert_ne!(values[1] + (values[0] + values[2]), ordered);
    for found in found {
        assert_eq!(found.unwrap(), [[0.0, 3.0]]);
    }
}

#[test]
fn rows_and_figures_come_in_the_order_of_ranks() {
    let found = on_ranks(3, |group| -> Result<_> {
        let rank = group.rank() as f32;
        let own = Tensor::new(&[[rank, 0.5], [rank, -3.0]], &Device::Cpu)?;
        let halves = own.to_dtype(DType::BF16)?;
        let (all, halves) = (group.gather(&own)?, group.gather(&halves)?);
        assert_eq!(halves.dtype(), DType::BF16);
        let same = halves.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        assert_eq!(same, all.to_vec2::<f32>()?);
        assert_eq!(
            group.own_rows(&all)?.to_vec2::<f32>()?,
            own.to_vec2::<f32>()?
        );
        group.barrier().unwrap();
        group.end().unwrap();
        assert!(group.any(group.rank() == 2).unwrap() && !group.any(false).unwrap());
        let numbers = group.numbers(&[f64::from(rank), 7.0]).unwrap();
        assert_eq!(numbers, [[0.0, 7.0], [1.0, 7.0], [2.0, 7.0]]);
        all.to_vec2::<f32>()
    });
    for rows in found {
        let (rows, firsts) = (rows.unwrap(), [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]);
        assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), firsts);
    }
}

#[test]
fn statistics_are_those_of_the_whole_batch() {
    let part = |rank: usize| {
        let value = rank as f64;
        from_numbers(&[
            value,
            value,
            value,
            value,
            value,
            0.5,
            2.0 * value,
            3.0 * value,
        ])
    };
    for found in on_ranks(2, |group| group.statistics(&part(group.rank())).unwrap()) {
        let whole = BatchStatistics::of_equal_parts(&[part(0), part(1)]);
        assert_eq!(found, whole);
        assert_eq!((found.loss, found.paper_bound), (0.5, 1.5));
        assert_eq!(from_numbers(&to_numbers(&found)), found);
    }
    let alone = ProcessGroup::alone().statistics(&part(3)).unwrap();
    assert_eq!(alone, part(3));
}

#[test]
fn a_rank_that_never_comes_is_named_within_the_wait_to_all_others() {
    let (port, started) = (port(), std::time::Instant::now());
    let join = |rank| {
        let wait = Duration::from_millis(600);
        let mut rendezvous = rendezvous(rank, 4, port);
        rendezvous.wait = wait;
        ProcessGroup::join(&rendezvous).unwrap_err().to_string()
    };
    let told = thread::scope(|scope| {
        let ranks = [0, 2].map(|rank| scope.spawn(move || join(rank)));
        ranks.map(|rank| rank.join().unwrap())
    });
    let missing = "of 4 processes, rank 1, 3 did not come within 0.6 s";
    assert_eq!(told[0], missing);
    assert_eq!(told[1], format!("rank 0 has ended: {missing}"));
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn without_rank_0_the_address_is_told() {
    let port = port();
    let mut rendezvous = rendezvous(1, 2, port);
    rendezvous.wait = Duration::from_millis(200);
    let error = ProcessGroup::join(&rendezvous).unwrap_err();
    let told = error.to_string();
    assert!(
        told.starts_with(&format!(
            "rank 0 does not answer at localhost:{port} within 0.2 s: "
        )),
        "{told}"
    );
    assert!(error.hint().contains("MASTER_ADDR"));
    rendezvous.rank = 2;
    let told = ProcessGroup::join(&rendezvous).unwrap_err().to_string();
    assert!(told.starts_with("rank 2 of 2: "), "{told}");
}

#[test]
fn two_of_one_rank_and_strangers_are_told_apart() {
    let port = port();
    let join = |rank| ProcessGroup::join(&rendezvous(rank, 3, port));
    thread::scope(|scope| {
        let first = scope.spawn(move || join(0));
        // A stranger is let go, and changes nothing.
        let mut stranger = loop {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
                break stream;
            }
        };
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let others = [scope.spawn(move || join(1)), scope.spawn(move || join(1))];
        let told = first.join().unwrap().unwrap_err().to_string();
        assert_eq!(
            told,
            "a process came as rank 1 of 3, which is there already"
        );
        for other in others {
            let told_other = other.join().unwrap().unwrap_err().to_string();
            assert_eq!(told_other, format!("rank 0 has ended: {told}"));
        }
    });
}

#[test]
fn last_words_reach_all_ranks_and_silence_has_an_end() {
    let told = on_ranks(3, |group| {
        if group.rank() == 2 {
            group.leave("the disk is full");
            return None;
        }
        Some(group.barrier().unwrap_err().to_string())
    });
    let told: Vec<_> = told.into_iter().flatten().collect();
    assert_eq!(told[0], "rank 2 has ended: the disk is full");
    assert_eq!(told[1], format!("rank 0 has ended: {}", told[0]));

    let port = port();
    let mut impatient = rendezvous(0, 2, port);
    impatient.patience = Duration::from_millis(150);
    thread::scope(|scope| {
        let other = scope.spawn(move || ProcessGroup::join(&rendezvous(1, 2, port)).unwrap());
        let group = ProcessGroup::join(&impatient).unwrap();
        let other = other.join().unwrap();
        let told = group.barrier().unwrap_err().to_string();
        assert_eq!(told, "rank 1 has been silent for 0.15 s");
        let told = other.barrier().unwrap_err().to_string();
        assert!(
            told.starts_with("rank 0 has ended: rank 1 has been silent"),
            "{told}"
        );
    });
}

#[test]
fn ranks_at_different_places_are_told() {
    let told = on_ranks(2, |group| {
        if group.rank() == 0 {
            group.barrier().unwrap_err().to_string()
        } else {
            let own = Tensor::zeros((1, 2), DType::F32, &Device::Cpu).unwrap();
            group.gather(&own).unwrap_err().to_string()
        }
    });
    let expected = "rank 1 is out of step: expected Numbers of 0 bytes, found Rows of 8 bytes";
    assert_eq!(told[0], expected);
    assert_eq!(told[1], format!("rank 0 has ended: {expected}"));
}

#[test]
fn a_connection_that_breaks_is_an_error_at_once() {
    let told = on_ranks(2, |group| match group.rank() {
        0 => group.barrier().unwrap_err().to_string(),
        _ => String::new(),
    });
    assert_eq!(
        told[0],
        "the connection to rank 1 is lost: it was closed without a word"
    );
}

#[test]
fn alone_nothing_is_sent_and_nothing_changes() -> Result<()> {
    let group = ProcessGroup::join(&rendezvous(0, 1, 1)).unwrap();
    let own = Tensor::new(&[[1f32, 2.0]], &Device::Cpu)?;
    group.average(std::slice::from_ref(&own))?;
    group.sum(std::slice::from_ref(&own))?;
    assert_eq!(group.gather(&own)?.to_vec2::<f32>()?, [[1.0, 2.0]]);
    assert_eq!(group.numbers(&[4.0]).unwrap(), [[4.0]]);
    assert!(group.is_first() && group.any(true).unwrap());
    Ok(())
}
