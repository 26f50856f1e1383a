use super::super::Level::{self, Failure, Ok, Warning};
use super::*;
use crate::telemetry::devices::Device;

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn vllm_truth_table() {
    let judge = |path: Option<&str>, version: Option<&str>, asked: Option<&str>| {
        let facts = VllmFacts {
            path: path.map(Into::into),
            version: version.map(str::to_owned),
            refusal: None,
            asked: asked.map(Into::into),
        };
        let line = vllm(&facts);
        assert_eq!(line.next_step.is_none(), line.level == Ok, "{line:?}");
        (line.level, line.message)
    };
    assert_eq!(judge(Some("/v"), Some("0.14.1"), None), (Ok, "vLLM 0.14.1 at /v".to_owned()));
    assert_eq!(judge(Some("/v"), Some("0.32.0rc1+xpu"), None).0, Ok);
    assert_eq!(judge(Some("/v"), Some("1.0"), None).0, Ok);
    assert_eq!(judge(Some("/v"), Some("0.1.dev9+gabc"), None).0, Ok);
    assert_eq!(judge(Some("/v"), Some("0.9.2"), None).0, Warning);
    assert_eq!(judge(Some("/v"), None, None).0, Warning);
    assert_eq!(judge(None, None, None).0, Failure);
    let (level, message) = judge(None, None, Some("/x/vllm"));
    assert_eq!((level, message.contains("/x/vllm")), (Failure, true));
}

#[test]
fn device_locks_truth_table() {
    let folder = Some(PathBuf::from("/tmp/vllm-bench-devices"));
    let free = LockFacts { folder, devices: 2, ..LockFacts::default() };
    let held = LockFacts { held: vec!["cores:0-1 is held by process 7 of ana".to_owned()], ..free.clone() };
    let broken = LockFacts { problem: Some(("it is a link".to_owned(), "name another".to_owned())), ..free.clone() };
    let off = LockFacts { folder: None, ..free.clone() };
    for (facts, level, words) in [
        (&free, Ok, "no other run holds a device"),
        (&held, Failure, "process 7 of ana"),
        (&broken, Failure, "it is a link"),
        (&off, Warning, "not locked"),
    ] {
        let line = device_locks(facts);
        assert_eq!((line.level, line.message.contains(words)), (level, true), "{line:?}");
        assert_eq!(line.next_step.is_none(), level == Ok);
    }
}

#[test]
fn setvars_truth_table() {
    let judge = |kind, path: Option<&str>, exists, explicit, loaded: bool| {
        let variables: &[(&str, &str)] = if loaded { &[("SETVARS_COMPLETED", "1")] } else { &[] };
        setvars(&SetvarsFacts { kind, path: path.map(Into::into), exists, explicit }, &environment(variables)).level
    };
    let script = Some("/opt/intel/oneapi/setvars.sh");
    for (kind, path, exists, explicit, loaded, level) in [
        (DeviceKind::Xpu, script, true, false, false, Ok),
        (DeviceKind::Xpu, script, false, false, false, Warning),
        (DeviceKind::Xpu, script, false, false, true, Ok),
        (DeviceKind::Xpu, script, false, true, true, Failure),
        (DeviceKind::Xpu, None, false, true, false, Ok),
        (DeviceKind::Cuda, script, false, false, false, Ok),
        (DeviceKind::Cpu, script, false, false, false, Ok),
        (DeviceKind::Cpu, script, false, true, false, Failure),
        (DeviceKind::Rocm, None, false, true, false, Ok),
    ] {
        assert_eq!(
            judge(kind, path, exists, explicit, loaded),
            level,
            "{kind:?} {path:?} {exists} {explicit} {loaded}"
        );
    }
    let absent = SetvarsFacts { kind: DeviceKind::Cuda, path: script.map(Into::into), exists: false, explicit: false };
    assert_eq!(setvars(&absent, &Environment::new()).message, "not needed on CUDA");
}

fn report(kind: DeviceKind, count: u32, problems: &[&str]) -> DeviceReport {
    let device = |index| Device {
        index,
        name: Some("Arc Pro B60".to_owned()),
        memory_total_bytes: Some(24 << 30),
        ..Device::default()
    };
    DeviceReport {
        kind,
        devices: (0..count).map(device).collect(),
        slots: count,
        sources: vec![],
        problems: problems.iter().map(|text| (*text).to_owned()).collect(),
    }
}

#[test]
fn devices_against_the_grid() {
    let judge = |kind, count, problems: &[&str], tps: &[u32]| -> (Level, String, String) {
        let line = devices(&report(kind, count, problems), tps);
        (line.level, line.message, line.next_step.unwrap_or_default())
    };
    let (level, message, _) = judge(DeviceKind::Xpu, 8, &[], &[2, 4, 8]);
    assert_eq!((level, message.as_str()), (Ok, "8 XPU devices (Arc Pro B60), 24.0 GiB each"));
    let (level, message, next) = judge(DeviceKind::Xpu, 2, &[], &[8, 2, 4, 8]);
    assert_eq!(
        (level, message.as_str()),
        (Failure, "2 XPU devices (Arc Pro B60), 24.0 GiB each: tp 4 and 8 will fail")
    );
    assert!(next.starts_with("use --tp values up to 2, or") && next.contains("ZE_AFFINITY_MASK"), "{next}");
    let (level, message, next) = judge(DeviceKind::Cuda, 1, &[], &[2]);
    assert_eq!((level, message.ends_with("tp 2 will fail")), (Failure, true), "{message}");
    assert!(next.starts_with("use --tp 1, or") && next.contains("CUDA_VISIBLE_DEVICES"), "{next}");
    assert_eq!(judge(DeviceKind::Rocm, 0, &[], &[1]).0, Failure);
    let (level, _, next) =
        judge(DeviceKind::Xpu, 2, &["the host has one more: start the container with --device /dev/dri"], &[2]);
    assert_eq!((level, next.as_str()), (Warning, "start the container with --device /dev/dri"));
}

#[test]
fn tiles_count_for_tp() {
    let four = DeviceReport { slots: 4, ..report(DeviceKind::Xpu, 2, &[]) };
    let line = devices(&four, &[4]);
    assert_eq!((line.level, line.message.contains("counted as 4")), (Ok, true), "{}", line.message);
}

#[test]
fn memory_is_told_only_when_all_devices_tell_it() {
    let mut two = report(DeviceKind::Xpu, 2, &[]);
    two.devices[1].memory_total_bytes = None;
    assert!(!devices(&two, &[1]).message.contains("GiB"));
}

#[test]
fn a_cpu_runs_tp_1() {
    for (problems, tps, level) in [
        (&[][..], &[1][..], Ok),
        (&[], &[1, 2, 4], Warning),
        (&["`nvidia-smi` failed (exit status: 9): no driver"], &[1], Warning),
    ] {
        let line = devices(&report(DeviceKind::Cpu, 1, problems), tps);
        assert_eq!(line.level, level, "{}", line.message);
        assert!(problems.iter().all(|problem| line.message.contains(problem)));
    }
    assert!(devices(&report(DeviceKind::Cpu, 1, &[]), &[1, 2, 4]).message.contains("tp 2 and 4"));
}

#[test]
fn places_of_hugging_face() {
    let places = |variables: &[(&str, &str)]| {
        let environment = environment(variables);
        let shown = |path: Option<PathBuf>| path.map(|path| path.display().to_string()).unwrap_or_default();
        (shown(hf_token_file(&environment)), shown(hf_hub_cache(&environment)))
    };
    let pair = |token: &str, hub: &str| (token.to_owned(), hub.to_owned());
    assert_eq!(places(&[]), pair("", ""));
    assert_eq!(places(&[("HOME", "/h")]), pair("/h/.cache/huggingface/token", "/h/.cache/huggingface/hub"));
    assert_eq!(places(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), pair("/x/huggingface/token", "/x/huggingface/hub"));
    assert_eq!(places(&[("HOME", "/h"), ("HF_HOME", "/hf")]), pair("/hf/token", "/hf/hub"));
    assert_eq!(places(&[("HF_TOKEN_PATH", "/t"), ("HF_HUB_CACHE", "/c")]), pair("/t", "/c"));
}

#[test]
fn token_truth_table_and_its_value_never_shows() {
    const SECRET: &str = "hf_planted";
    let spaced = format!("{SECRET}\n");
    for (variables, file, level, source) in [
        (&[("HF_TOKEN", SECRET)][..], false, Ok, Some("HF_TOKEN")),
        (&[("HUGGING_FACE_HUB_TOKEN", SECRET)], true, Ok, Some("HUGGING_FACE_HUB_TOKEN")),
        (&[("HF_TOKEN", "")], false, Warning, None),
        (&[("HF_TOKEN", spaced.as_str())], false, Warning, Some("HF_TOKEN")),
        (&[], true, Ok, Some("file")),
        (&[], false, Warning, None),
        (&[("HF_HUB_OFFLINE", "1")], false, Ok, None),
    ] {
        let line = hf_token(&environment(variables), file);
        assert_eq!(line.level, level, "{variables:?} {file}");
        assert_eq!(line.data["source"].as_str(), source, "{variables:?} {file}");
        assert!(!format!("{line:?}{}", serde_json::to_string(&line).unwrap()).contains(SECRET));
    }
}

#[test]
fn cache_truth_table() {
    let state = |exists, refusal: Option<&str>| FolderState {
        path: "/c".into(),
        tried: "/".into(),
        exists,
        refusal: refusal.map(str::to_owned),
    };
    assert_eq!(hf_cache(Some(&state(true, None))).level, Ok);
    assert_eq!(hf_cache(Some(&state(false, None))).level, Warning);
    assert_eq!(hf_cache(Some(&state(true, Some("denied")))).level, Warning);
    assert_eq!(hf_cache(Some(&state(false, Some("denied")))).level, Failure);
    assert_eq!(hf_cache(None).level, Warning);
}
