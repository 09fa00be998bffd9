//! Tests of the queue of keys.

use candle_core::DType;

use super::*;

type TestResult = Result<(), ModelError>;

/// N keys of two components, numbered from `first`: row i is (i, −i).
fn numbered(first: usize, count: usize) -> Tensor {
    let rows: Vec<f32> = (first..first + count)
        .flat_map(|i| [i as f32, -(i as f32)])
        .collect();
    Tensor::from_vec(rows, (count, 2), &Device::Cpu).unwrap()
}

fn first_column(queue: &KeyQueue) -> Vec<f32> {
    let rows = queue.keys().to_vec2::<f32>().unwrap();
    rows.iter().map(|row| row[0]).collect()
}

#[test]
fn initial_keys_are_unit_vectors_in_all_directions_keyed_by_the_seed() -> TestResult {
    let queue = KeyQueue::new(2000, 8, 7, &Device::Cpu)?;
    let rows = queue.keys().to_vec2::<f32>()?;
    let mut mean = [0f64; 8];
    for row in &rows {
        let norm: f64 = row.iter().map(|v| f64::from(*v).powi(2)).sum();
        assert!((norm - 1.0).abs() < 1e-6, "{norm}");
        mean.iter_mut()
            .zip(row)
            .for_each(|(mean, v)| *mean += f64::from(*v) / 2000.0);
    }
    // A component has variance 1/8: the mean's deviation is √(1/8/2000) = 0.0079, and 5 of them are allowed.
    assert!(mean.iter().all(|m| m.abs() < 0.04), "{mean:?}");
    assert_eq!(
        KeyQueue::new(2000, 8, 7, &Device::Cpu)?
            .keys()
            .to_vec2::<f32>()?,
        rows
    );
    assert_ne!(
        KeyQueue::new(2000, 8, 8, &Device::Cpu)?
            .keys()
            .to_vec2::<f32>()?,
        rows
    );
    assert_eq!(
        (queue.cursor(), queue.filled(), queue.capacity()),
        (0, 0, 2000)
    );
    Ok(())
}

#[test]
fn keys_wrap_around_where_the_batch_does_not_divide_the_queue() -> TestResult {
    let mut queue = KeyQueue::new(5, 2, 0, &Device::Cpu)?;
    let untouched = first_column(&queue);
    queue.enqueue(&numbered(10, 3))?;
    assert_eq!(
        first_column(&queue),
        [10.0, 11.0, 12.0, untouched[3], untouched[4]]
    );
    assert_eq!((queue.cursor(), queue.filled()), (3, 3));
    queue.enqueue(&numbered(13, 3))?;
    assert_eq!(first_column(&queue), [15.0, 11.0, 12.0, 13.0, 14.0]);
    assert_eq!((queue.cursor(), queue.filled()), (1, 5));
    assert_eq!(queue.keys().to_vec2::<f32>()?[4], [14.0, -14.0]);
    Ok(())
}

#[test]
fn any_batch_size_leaves_what_enqueuing_one_by_one_leaves() -> TestResult {
    for capacity in [1, 2, 5, 8] {
        for batch in [0, 1, 4, 5, 8, 13, 21] {
            let mut at_once = KeyQueue::new(capacity, 2, 3, &Device::Cpu)?;
            let mut one_by_one = KeyQueue::new(capacity, 2, 3, &Device::Cpu)?;
            for round in 0..3 {
                at_once.enqueue(&numbered(100 * round, batch))?;
                for key in 0..batch {
                    one_by_one.enqueue(&numbered(100 * round + key, 1))?;
                }
                assert_eq!(
                    first_column(&at_once),
                    first_column(&one_by_one),
                    "K {capacity}, N {batch}"
                );
                assert_eq!(
                    at_once.cursor(),
                    one_by_one.cursor(),
                    "K {capacity}, N {batch}"
                );
                assert_eq!(
                    at_once.filled(),
                    one_by_one.filled(),
                    "K {capacity}, N {batch}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn what_was_enqueued_can_be_taken_back_to_the_bit() -> TestResult {
    for capacity in [1, 3, 8] {
        for batch in [0, 1, 5, 8, 20] {
            let mut queue = KeyQueue::new(capacity, 2, 4, &Device::Cpu)?;
            for round in 0..4 {
                let before = (first_column(&queue), queue.cursor(), queue.filled());
                let ahead = queue.ahead(batch)?;
                queue.enqueue(&numbered(1000, batch))?;
                queue.put_back(&ahead)?;
                let after = (first_column(&queue), queue.cursor(), queue.filled());
                assert_eq!(after, before, "K {capacity}, N {batch}");
                queue.enqueue(&numbered(100 * round, 5))?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_resumed_queue_goes_on_as_the_first_would_have() -> TestResult {
    let mut queue = KeyQueue::new(7, 2, 1, &Device::Cpu)?;
    queue.enqueue(&numbered(0, 5))?;
    let state: HashMap<_, _> = queue
        .state()?
        .into_iter()
        .map(|(n, t)| (format!("queue.{n}"), t))
        .collect();
    queue.enqueue(&numbered(5, 4))?;
    let mut resumed = KeyQueue::new(7, 2, 99, &Device::Cpu)?;
    resumed.load_state("queue.", &state)?;
    assert_eq!((resumed.cursor(), resumed.filled()), (5, 5));
    resumed.enqueue(&numbered(5, 4))?;
    assert_eq!(first_column(&resumed), first_column(&queue));
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() -> TestResult {
    let mut queue = KeyQueue::new(4, 2, 1, &Device::Cpu)?;
    let before = first_column(&queue);
    let wrong = Tensor::zeros((3, 5), DType::F32, &Device::Cpu)?;
    let message = queue.enqueue(&wrong).unwrap_err().to_string();
    assert!(
        message.contains("[3, 2]") && message.contains("[3, 5]"),
        "{message}"
    );
    assert!(
        queue
            .enqueue(&numbered(0, 2).to_dtype(DType::F64)?)
            .is_err()
    );
    assert!(queue.enqueue(&numbered(0, 2).flatten_all()?).is_err());

    let mut state: HashMap<_, _> = queue.state()?.into_iter().collect();
    state.insert("cursor".into(), Tensor::new(4i64, &Device::Cpu)?);
    let message = queue.load_state("", &state).unwrap_err().to_string();
    assert!(
        message.contains("tensor cursor: expected at most 3"),
        "{message}"
    );
    state.insert("cursor".into(), Tensor::new(-1i64, &Device::Cpu)?);
    assert!(
        queue
            .load_state("", &state)
            .unwrap_err()
            .to_string()
            .contains("found -1")
    );
    state.insert(
        "keys".into(),
        Tensor::zeros((5, 2), DType::F32, &Device::Cpu)?,
    );
    assert!(
        queue
            .load_state("", &state)
            .unwrap_err()
            .to_string()
            .contains("[5, 2]")
    );
    state.remove("keys");
    assert!(
        queue
            .load_state("", &state)
            .unwrap_err()
            .to_string()
            .contains("found nothing")
    );

    assert_eq!(first_column(&queue), before);
    assert_eq!((queue.cursor(), queue.filled()), (0, 0));
    assert!(
        KeyQueue::new(0, 2, 1, &Device::Cpu).is_err()
            && KeyQueue::new(2, 0, 1, &Device::Cpu).is_err()
    );
    assert!(
        KeyQueue::new(usize::MAX, 2, 1, &Device::Cpu)
            .unwrap_err()
            .to_string()
            .contains("address space")
    );
    Ok(())
}
