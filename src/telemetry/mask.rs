//! Which devices a process will see, given the variables that narrow the choice. Pure: text in, positions out.

/// The positions (in the unmasked list) that stay, in the order the process will count them, and what is odd about the mask.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    pub positions: Vec<usize>,
    pub notes: Vec<String>,
}

/// `ZE_AFFINITY_MASK`: `0,1`, or `0.1` for a tile (its device stays). Level Zero keeps the devices' own order, and ignores
/// what does not exist.
pub(super) fn ze_affinity(mask: &str, count: usize) -> Selection {
    let mut selection = Selection::default();
    for word in mask.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let device = word.split('.').next().unwrap_or(word);
        match device.parse::<usize>() {
            Ok(position) if position < count => selection.positions.push(position),
            _ => selection.notes.push(format!("ZE_AFFINITY_MASK={mask}: `{word}` names no device of this machine")),
        }
    }
    selection.positions.sort_unstable();
    selection.positions.dedup();
    selection
}

/// `ONEAPI_DEVICE_SELECTOR`: terms `backend:devices` joined by `;`, where vLLM uses Level Zero GPUs. Positions are those that
/// `ZE_AFFINITY_MASK` has left.
pub(super) fn oneapi_selector(selector: &str, count: usize) -> Selection {
    let terms: Vec<&str> = selector.split(';').map(str::trim).filter(|term| !term.is_empty()).collect();
    let mut notes = Vec::new();
    let mut chosen = vec![terms.iter().all(|term| term.starts_with('!')); count];
    for (term, keep) in terms
        .iter()
        .filter(|term| !term.starts_with('!'))
        .map(|term| (*term, true))
        .chain(terms.iter().filter_map(|term| Some((term.strip_prefix('!')?, false))))
    {
        let Some((backend, devices)) = term.split_once(':') else {
            notes.push(format!("ONEAPI_DEVICE_SELECTOR={selector}: `{term}` is not `backend:devices`"));
            continue;
        };
        if !["level_zero", "*"].contains(&backend.trim().to_ascii_lowercase().as_str()) {
            continue;
        }
        for word in devices.split(',').map(|word| word.trim().to_ascii_lowercase()) {
            let device = word.split('.').next().unwrap_or(&word);
            match device {
                "*" | "gpu" => chosen.fill(keep),
                "cpu" | "fpga" => {}
                _ => match device.parse::<usize>() {
                    Ok(position) if position < count => chosen[position] = keep,
                    _ => notes
                        .push(format!("ONEAPI_DEVICE_SELECTOR={selector}: `{word}` names no device that is visible")),
                },
            }
        }
    }
    let positions = (0..count).filter(|position| chosen[*position]).collect();
    Selection { positions, notes }
}

/// `CUDA_VISIBLE_DEVICES` and its ROCm cousins: numbers or (the beginning of) UUIDs, in the order the process will count
/// them. The first entry that fits nothing hides itself and all that follow. An empty text hides every device. Only the first `numbered`
/// entries have numbers: instances of a GPU have a UUID alone.
pub(super) fn cuda_list(variable: &str, list: &str, uuids: &[Option<String>], numbered: usize) -> Selection {
    let mut selection = Selection::default();
    for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let by_uuid = || {
            uuids.iter().position(|uuid| uuid.as_deref().is_some_and(|uuid| word.len() > 4 && uuid.starts_with(word)))
        };
        let position = word.parse::<usize>().ok().filter(|position| *position < numbered).or_else(by_uuid);
        match position {
            Some(position) if !selection.positions.contains(&position) => selection.positions.push(position),
            Some(_) => {
                selection.notes.push(format!("{variable}={list} names one device twice: the runtime may refuse it"));
            }
            None => {
                if word != "-1" {
                    let note = format!("{variable}={list}: `{word}` fits no device; it and what follows is hidden");
                    selection.notes.push(note);
                }
                break;
            }
        }
    }
    selection
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affinity_masks() {
        for (mask, positions, notes) in [
            ("0,1", vec![0, 1], 0),
            ("3", vec![3], 0),
            ("2, 0", vec![0, 2], 0),
            ("0.0,0.1", vec![0], 0),
            ("1,7", vec![1], 1),
            ("gpu", vec![], 1),
        ] {
            let selection = ze_affinity(mask, 4);
            assert_eq!((selection.positions, selection.notes.len()), (positions, notes), "{mask}");
        }
    }

    #[test]
    fn device_selectors() {
        for (selector, positions, notes) in [
            ("level_zero:gpu", vec![0, 1, 2, 3], 0),
            ("*:gpu", vec![0, 1, 2, 3], 0),
            ("level_zero:0,2", vec![0, 2], 0),
            ("level_zero:1.0", vec![1], 0),
            ("LEVEL_ZERO:3;opencl:cpu", vec![3], 0),
            ("opencl:gpu", vec![], 0),
            ("!opencl:*", vec![0, 1, 2, 3], 0),
            ("!level_zero:0", vec![1, 2, 3], 0),
            ("level_zero:*;!level_zero:1", vec![0, 2, 3], 0),
            ("level_zero:9", vec![], 1),
            ("gpu", vec![], 1),
        ] {
            let selection = oneapi_selector(selector, 4);
            assert_eq!((selection.positions, selection.notes.len()), (positions, notes), "{selector}");
        }
    }

    #[test]
    fn instances_have_no_numbers() {
        let uuids: Vec<_> = ["GPU-aaaa-1", "MIG-bbbb-2"].map(|uuid| Some(uuid.to_owned())).into();
        for (list, positions) in [("1", vec![]), ("MIG-bbbb", vec![1]), ("0,MIG-bbbb-2", vec![0, 1])] {
            assert_eq!(cuda_list("CUDA_VISIBLE_DEVICES", list, &uuids, 1).positions, positions, "{list}");
        }
    }

    #[test]
    fn cuda_lists() {
        let uuids: Vec<_> = ["GPU-aaaa-1", "GPU-bbbb-2", "GPU-cccc-3"].map(|uuid| Some(uuid.to_owned())).into();
        for (list, positions, notes) in [
            ("2,0", vec![2, 0], 0),
            ("", vec![], 0),
            ("-1", vec![], 0),
            ("0,9,1", vec![0], 1),
            ("GPU-bbbb", vec![1], 0),
            ("GPU-", vec![], 1),
            ("1,1", vec![1], 1),
            ("MIG-1234,0", vec![], 1),
        ] {
            let selection = cuda_list("CUDA_VISIBLE_DEVICES", list, &uuids, uuids.len());
            assert_eq!((selection.positions, selection.notes.len()), (positions, notes), "{list}");
        }
    }
}
