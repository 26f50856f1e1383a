use super::*;
use crate::telemetry::fixture::Tree;

/// A PCI device with its NUMA node, below a root port and, with a switch, below that.
fn place(tree: &Tree, address: &str, switch: Option<&str>, numa: &str) {
    let above = switch.map_or_else(String::new, |switch| format!("{switch}/0000:98:00.0/"));
    let folder = format!("sys/devices/pci0000:00/0000:00:01.0/{above}{address}");
    tree.file(&format!("{folder}/numa_node"), &format!("{numa}\n"));
    tree.link(&format!("sys/bus/pci/devices/{address}"), &format!("../../../../{folder}"));
}

fn masks(units: &[ComputeUnit]) -> Vec<&str> {
    units.iter().map(|unit| unit.mask.as_str()).collect()
}

fn addresses(units: &[ComputeUnit]) -> Vec<&str> {
    units.iter().map(|unit| unit.address.as_str()).collect()
}

/// The variables for the units at these positions, as text.
fn variables(inventory: &Inventory, positions: &[usize]) -> String {
    let units: Vec<&ComputeUnit> = positions.iter().map(|position| &inventory.units[*position]).collect();
    let shown = inventory.visible_variables(&units).into_iter().map(|(name, value)| format!("{name}={value}"));
    shown.collect::<Vec<_>>().join(" ")
}

fn four_b60(tiles: u32) -> Tree {
    let tree = Tree::new();
    for (minor, address, numa) in [
        (131, "0000:03:00.0", "0"),
        (130, "0000:13:00.0", "0"),
        (129, "0000:83:00.0", "1"),
        (128, "0000:93:00.0", "-1"),
    ] {
        tree.render_node(minor, ("0x8086", "0xe211"), "xe", address);
        place(&tree, address, (minor >= 130).then_some("0000:97:00.0"), numa);
        for tile in 0..tiles {
            tree.file(&format!("sys/class/drm/renderD{minor}/device/tile{tile}/x"), "");
        }
    }
    tree
}

#[test]
fn intel_cards_are_known_by_their_addresses_whatever_their_numbers() {
    let tree = four_b60(1);
    let inventory = inventory(&tree.probe(), DeviceKind::Xpu, 1);
    assert_eq!(addresses(&inventory.units), ["0000:03:00.0", "0000:13:00.0", "0000:83:00.0", "0000:93:00.0"]);
    assert_eq!(masks(&inventory.units), ["0", "1", "2", "3"]);
    let first = &inventory.units[0];
    assert_eq!((first.numa, first.node.as_deref()), (Some(0), Some("/dev/dri/renderD131".as_ref())));
    assert_eq!(inventory.units[3].numa, None, "-1 is unknown");
    let groups: Vec<_> = inventory.units.iter().map(|unit| unit.group.as_deref()).collect();
    assert_eq!(groups, [Some("pcie-switch:0000:03:00.0"), Some("pcie-switch:0000:03:00.0"), None, None]);
    assert_eq!(inventory.links.len(), 1);
    assert_eq!(variables(&inventory, &[1, 3]), "ZE_AFFINITY_MASK=1,3");
    assert_eq!(inventory.problems, [""; 0]);
}

#[test]
fn a_mask_of_the_user_narrows_and_the_numbers_stay_those_of_the_machine() {
    let tree = four_b60(1);
    let of = |given: &[(&str, &str)]| inventory(&tree.probe_with(given), DeviceKind::Xpu, 1);
    let masked = of(&[("ZE_AFFINITY_MASK", "2,3")]);
    assert_eq!(addresses(&masked.units), ["0000:83:00.0", "0000:93:00.0"]);
    // The server gets this variable in the place of the user's: 1 would be another card.
    assert_eq!(variables(&masked, &[1]), "ZE_AFFINITY_MASK=3");
    let selected = of(&[("ZE_AFFINITY_MASK", "1,2,3"), ("ONEAPI_DEVICE_SELECTOR", "level_zero:0,2")]);
    assert_eq!(masks(&selected.units), ["1", "3"]);
    assert_eq!(variables(&selected, &[1]), "ONEAPI_DEVICE_SELECTOR=level_zero:gpu ZE_AFFINITY_MASK=3");
    assert_eq!(of(&[("ZE_AFFINITY_MASK", "9")]).units, []);
}

#[test]
fn tiles_are_units_where_the_runtime_counts_them() {
    let tree = four_b60(2);
    let flat = inventory(&tree.probe(), DeviceKind::Xpu, 1);
    assert_eq!(addresses(&flat.units)[..3], ["0000:03:00.0/tile0", "0000:03:00.0/tile1", "0000:13:00.0/tile0"]);
    assert_eq!(masks(&flat.units), ["0", "1", "2", "3", "4", "5", "6", "7"]);
    assert_eq!(flat.units[7].group.as_deref(), Some("card:0000:93:00.0/tile0"));
    assert_eq!(variables(&flat, &[6, 7]), "ZE_FLAT_DEVICE_HIERARCHY=FLAT ZE_AFFINITY_MASK=6,7");
    let of = |mask: &str| {
        let given = [("ZE_FLAT_DEVICE_HIERARCHY", "composite"), ("ZE_AFFINITY_MASK", mask)];
        inventory(&tree.probe_with(&given), DeviceKind::Xpu, 1)
    };
    let composite = of("1.1,2");
    assert_eq!(addresses(&composite.units), ["0000:13:00.0/tile1", "0000:83:00.0"]);
    assert_eq!(variables(&composite, &[0]), "ZE_FLAT_DEVICE_HIERARCHY=composite ZE_AFFINITY_MASK=1.1");
}

#[test]
fn xe_link_groups_cards_and_is_asked_for_only_where_it_can_be() {
    let matrix = "         GPU 0/0|GPU 0/1|GPU 1/0|GPU 1/1|CPU Affinity\nGPU 0/0  S      |MDF    |XL8    |XL*    |0-23\n\
        GPU 0/1  MDF    |S      |XL*    |XL8    |0-23\nGPU 1/0  XL8    |XL*    |S      |MDF    |24-47\n\
        GPU 1/1  XL*    |XL8    |MDF    |S      |24-47";
    let discovery = r#"{"device_list": [
        {"device_id": 0, "pci_bdf_address": "0000:3a:00.0", "number_of_tiles": "2", "memory_physical_size_byte": "137438953472"},
        {"device_id": 1, "pci_bdf_address": "0000:9a:00.0", "number_of_tiles": "2", "memory_physical_size_byte": "137438953472"}]}"#;
    let script = format!(
        "case $1 in\ntopology) cat <<'T'\n{matrix}\nT\n;;\n*) cat <<'T'\n{discovery}\nT\n;;\nesac\necho $1 >> \"$0.asked\""
    );
    let machine = |device: &str| {
        let tree = Tree::new();
        tree.render_node(128, ("0x8086", device), "xe", "0000:3a:00.0");
        tree.render_node(129, ("0x8086", device), "xe", "0000:9a:00.0");
        tree.tool("xpu-smi", &script);
        tree
    };
    let tree = machine("0x0bd5");
    let inventory = super::inventory(&tree.probe(), DeviceKind::Xpu, 1);
    assert_eq!(inventory.units.len(), 4);
    assert!(
        inventory.units.iter().all(|unit| unit.group.as_deref() == Some("xelink:0000:3a:00.0/tile0")),
        "{inventory:#?}"
    );
    assert_eq!(inventory.units[0].memory_bytes, Some(64 << 30), "a tile has its part of the memory");
    let direct = inventory.links.iter().find(|link| link.kind == LinkKind::XeLink && link.count.is_some()).unwrap();
    assert_eq!((direct.count, direct.between.1.as_str()), (Some(8), "0000:9a:00.0/tile0"));
    let arc = machine("0xe211");
    super::inventory(&arc.probe(), DeviceKind::Xpu, 1);
    let asked = std::fs::read_to_string(arc.path().join("bin/xpu-smi.asked")).unwrap();
    assert!(!asked.contains("topology"), "the tool disturbs cards that work: {asked}");
}

const FOUR_GPUS: &str = "0, NVIDIA A100-SXM4-80GB, 00000000:01:00.0, 81920, 4, 570.1, GPU-aaaa, Disabled\n\
    1, NVIDIA A100-SXM4-80GB, 00000000:41:00.0, 81920, 4, 570.1, GPU-bbbb, Disabled\n\
    2, NVIDIA A100-SXM4-80GB, 00000000:81:00.0, 81920, 4, 570.1, GPU-cccc, Disabled\n\
    3, NVIDIA A100-SXM4-80GB, 00000000:C1:00.0, 81920, 4, 570.1, GPU-dddd, Disabled";

fn nvidia(rows: &str, topology: &str, list: &str) -> Tree {
    let tree = Tree::new();
    let part = |text: &str| format!("cat <<'T'\n{text}\nT\n;;");
    // Two instances of the first GPU, as `nvidia-smi -q -x` has them (much left out).
    let instance = |total: u32, used: u32| {
        format!(
            "<mig_device><index>0</index><fb_memory_usage><total>{total} MiB</total><reserved>0 MiB</reserved>\
             <used>{used} MiB</used><free>1 MiB</free></fb_memory_usage><bar1_memory_usage><total>1 MiB</total></bar1_memory_usage></mig_device>"
        )
    };
    let xml = format!(
        "<nvidia_smi_log><gpu id=\"00000000:01:00.0\"><fb_memory_usage><total>81559 MiB</total><used>N/A</used></fb_memory_usage>\
         <mig_devices>{}{}</mig_devices></gpu><gpu id=\"00000000:41:00.0\"><mig_devices>None</mig_devices></gpu></nvidia_smi_log>",
        instance(20096, 14),
        instance(9984, 7)
    );
    let script = format!(
        "case $1 in\ntopo) {}\n-L) {}\n-q) {}\n*) {}\nesac",
        part(topology),
        part(list),
        part(&xml),
        part(rows)
    );
    tree.tool("nvidia-smi", &script);
    tree
}

#[test]
fn nvidia_gpus_have_links_and_numa_nodes_of_the_matrix() {
    let topology = "\tGPU0\tGPU1\tGPU2\tGPU3\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\n\
        GPU0\t X \tNV4\tSYS\tSYS\t0-31\t0\t\tN/A\nGPU1\tNV4\t X \tSYS\tSYS\t0-31\t0\t\tN/A\n\
        GPU2\tSYS\tSYS\t X \tNV4\t32-63\t1\t\tN/A\nGPU3\tSYS\tSYS\tNV4\t X \t32-63\t1\t\tN/A";
    let tree = nvidia(FOUR_GPUS, topology, "");
    let inventory = inventory(&tree.probe(), DeviceKind::Cuda, 1);
    let groups: Vec<_> = inventory.units.iter().map(|unit| unit.group.clone().unwrap()).collect();
    assert_eq!(groups[..2], ["nvlink:0000:01:00.0"; 2]);
    assert_eq!(groups[2..], ["nvlink:0000:81:00.0"; 2]);
    assert_eq!(inventory.units.iter().map(|unit| unit.numa).collect::<Vec<_>>(), [Some(0), Some(0), Some(1), Some(1)]);
    assert_eq!(inventory.links[0].count, Some(4));
    assert_eq!(variables(&inventory, &[2, 3]), "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=2,3");
}

#[test]
fn cuda_numbers_are_the_machine_s_whatever_the_user_s_mask_says() {
    let tree = nvidia(FOUR_GPUS, "", "");
    for (mask, expected) in [
        ("2,3", &[("0000:81:00.0", "2"), ("0000:c1:00.0", "3")][..]),
        ("3,2", &[("0000:c1:00.0", "3"), ("0000:81:00.0", "2")]),
        // vLLM reads numbers only: UUIDs of whole GPUs become numbers.
        ("GPU-dddd", &[("0000:c1:00.0", "3")]),
        ("", &[]),
        ("0,7,1", &[("0000:01:00.0", "0")]),
    ] {
        let inventory = inventory(&tree.probe_with(&[("CUDA_VISIBLE_DEVICES", mask)]), DeviceKind::Cuda, 1);
        let seen: Vec<_> = inventory.units.iter().map(|unit| (unit.address.as_str(), unit.mask.as_str())).collect();
        assert_eq!(seen, expected, "{mask}");
        if let [.., _] = inventory.units.as_slice() {
            let last = inventory.units.len() - 1;
            let value = format!("CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES={}", inventory.units[last].mask);
            assert_eq!(variables(&inventory, &[last]), value);
        }
    }
}

#[test]
fn instances_of_split_gpus_are_units_and_the_gpu_is_none() {
    let rows = "0, NVIDIA H100 80GB HBM3, 00000000:01:00.0, 81559, 90, 580.1, GPU-7f57f032, Enabled\n\
        1, NVIDIA H100 80GB HBM3, 00000000:41:00.0, 81559, 4, 580.1, GPU-8c7c9c30, Disabled\n\
        2, NVIDIA H100 80GB HBM3, 00000000:81:00.0, 81559, 4, 580.1, GPU-9d9d9d9d, Enabled";
    let list = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-7f57f032)\n  \
        MIG 2g.20gb     Device  0: (UUID: MIG-377e0049-554c-540b-93c6-d0976f8426cb)\n  \
        MIG 1g.10gb     Device  1: (UUID: MIG-f39aa248-6f1b-5769-b119-8d650bb34b27)\n\
        GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-8c7c9c30)\nGPU 2: NVIDIA H100 80GB HBM3 (UUID: GPU-9d9d9d9d)";
    let tree = nvidia(rows, "", list);
    let all = inventory(&tree.probe(), DeviceKind::Cuda, 1);
    let first = "MIG-377e0049-554c-540b-93c6-d0976f8426cb";
    assert_eq!(addresses(&all.units), [first, "MIG-f39aa248-6f1b-5769-b119-8d650bb34b27", "0000:41:00.0"]);
    assert_eq!(all.units[0].name.as_deref(), Some("NVIDIA H100 80GB HBM3 MIG 2g.20gb"));
    assert_eq!((all.units[0].memory_bytes, all.units[1].memory_bytes), (Some(20096 << 20), Some(9984 << 20)));
    assert_eq!(all.units[0].node, None, "its node is that of its neighbours, too");
    let used = unit_memory(&tree.probe(), DeviceKind::Cuda, &all.units);
    assert_eq!(used[1], ("MIG-f39aa248-6f1b-5769-b119-8d650bb34b27".to_owned(), 7 << 20));
    assert_eq!(used.len(), 3, "{used:?}");
    assert!(
        all.problems.iter().any(|line| line.contains("GPU 2 is in MIG mode and has no instance")),
        "{:?}",
        all.problems
    );
    assert_eq!(variables(&all, &[0]), format!("CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES={first}"));
    for (mask, expected) in [("MIG-f39aa248,1", 2), ("0", 2), ("GPU-8c7c9c30", 1), ("MIG-0000", 0)] {
        let masked = inventory(&tree.probe_with(&[("CUDA_VISIBLE_DEVICES", mask)]), DeviceKind::Cuda, 1);
        assert_eq!(masked.units.len(), expected, "{mask}: {masked:#?}");
    }
}

/// Cards in compute partitions: the nodes of one card share its location, and the number of the partition stands above it.
fn mi300(partitions: u32) -> Tree {
    let tree = Tree::new();
    tree.file("dev/kfd", "");
    tree.file(
        "sys/class/kfd/kfd/topology/nodes/0/properties",
        "cpu_cores_count 96\nsimd_count 0\ndrm_render_minor 0\n",
    );
    let mut number = 1;
    for (card, (bus, address)) in [(0x0c, "0000:0c:00.0"), (0x22, "0000:22:00.0")].into_iter().enumerate() {
        for partition in 0..partitions {
            let minor = 128 + u32::try_from(card).unwrap() * 8 + partition;
            if partition == 0 {
                tree.render_node(minor, ("0x1002", "0x74a1"), "amdgpu", address);
                tree.file(&format!("sys/class/drm/renderD{minor}/device/mem_info_vram_total"), "206141652992\n");
                place(&tree, address, None, &card.to_string());
            } else {
                tree.file(&format!("dev/dri/renderD{minor}"), "");
            }
            let location = u64::from(partition) << 28 | bus << 8;
            let folder = format!("sys/class/kfd/kfd/topology/nodes/{number}");
            let unique = 0x1000 + number;
            tree.file(
                &format!("{folder}/properties"),
                &format!(
                    "cpu_cores_count 0\nsimd_count 304\nlocation_id {location}\ndomain 0\ndrm_render_minor {minor}\n\
                     hive_id 7337\nunique_id {unique}\n"
                ),
            );
            tree.file(&format!("{folder}/mem_banks/0/properties"), "heap_type 1\nsize_in_bytes 51539607552\n");
            number += 1;
        }
    }
    tree
}

#[test]
fn amd_gpus_are_linked_by_the_kernel_s_hive_and_masks_are_composed() {
    let tree = mi300(1);
    let of = |given: &[(&str, &str)]| inventory(&tree.probe_with(given), DeviceKind::Rocm, 1);
    let plain = of(&[]);
    assert_eq!(addresses(&plain.units), ["0000:0c:00.0", "0000:22:00.0"]);
    assert_eq!(plain.units[1].group.as_deref(), Some("xgmi:0000:0c:00.0"));
    assert_eq!((plain.units[1].numa, plain.units[1].memory_bytes), (Some(1), Some(206_141_652_992)));
    assert_eq!(variables(&plain, &[1]), "HIP_VISIBLE_DEVICES=1");
    // ROCr's list stays, and HIP counts in it.
    let rocr = of(&[("ROCR_VISIBLE_DEVICES", "1")]);
    assert_eq!(addresses(&rocr.units), ["0000:22:00.0"]);
    assert_eq!(variables(&rocr, &[0]), "ROCR_VISIBLE_DEVICES=1 HIP_VISIBLE_DEVICES=0");
    let by_uuid = of(&[("ROCR_VISIBLE_DEVICES", "GPU-0000000000001002")]);
    assert_eq!(addresses(&by_uuid.units), ["0000:22:00.0"]);
    // vLLM refuses two lists that differ.
    let both = of(&[("HIP_VISIBLE_DEVICES", "0,1"), ("CUDA_VISIBLE_DEVICES", "0,1")]);
    assert_eq!(variables(&both, &[1]), "CUDA_VISIBLE_DEVICES=1 HIP_VISIBLE_DEVICES=1");
}

#[test]
fn amd_partitions_are_units() {
    let tree = mi300(4);
    let inventory = inventory(&tree.probe(), DeviceKind::Rocm, 1);
    assert_eq!(inventory.units.len(), 8);
    assert_eq!(addresses(&inventory.units)[3..5], ["0000:0c:00.0/part3", "0000:22:00.0/part0"]);
    assert_eq!(masks(&inventory.units)[3..5], ["3", "4"]);
    assert_eq!(inventory.units[3].memory_bytes, Some(48 << 30));
    assert_eq!(crate::telemetry::devices::detect(&tree.probe()).slots, 8);
}

#[test]
fn without_the_kernel_s_word_the_tool_tells_of_links() {
    let tree = Tree::new();
    tree.file("dev/kfd", "");
    for (minor, address) in [(128, "0000:05:00.0"), (136, "0000:c3:00.0")] {
        tree.render_node(minor, ("0x1002", "0x74a1"), "amdgpu", address);
    }
    let topology =
        r#"[{"gpu": 0, "bdf": "0000:05:00.0", "links": [{"gpu": 1, "bdf": "0000:C3:00.0", "link_type": "XGMI"}]}]"#;
    tree.tool("amd-smi", &format!("case $1 in topology) cat <<'T'\n{topology}\nT\n;; *) exit 1;; esac"));
    let inventory = inventory(&tree.probe(), DeviceKind::Rocm, 1);
    assert_eq!(inventory.units[0].group.as_deref(), Some("xgmi:0000:05:00.0"), "{inventory:#?}");
}

#[test]
fn what_is_locked_is_what_the_inventory_has() {
    for (tree, kind) in
        [(four_b60(2), DeviceKind::Xpu), (nvidia(FOUR_GPUS, "", ""), DeviceKind::Cuda), (mi300(4), DeviceKind::Rocm)]
    {
        let units = visible_units(&tree.probe());
        assert_eq!(addresses(&units), addresses(&inventory(&tree.probe(), kind, 1).units));
        assert!(units.len() >= 4, "{units:?}");
    }
    let tree = Tree::new();
    tree.file("proc/self/status", "Cpus_allowed_list:\t0-3\n");
    assert_eq!(addresses(&visible_units(&tree.probe())), ["cores:0-3"]);
}

#[test]
fn core_sets_are_bound_by_their_lists() {
    let tree = Tree::new();
    tree.file("proc/self/status", "Cpus_allowed_list:\t0-3\n");
    let inventory = inventory(&tree.probe(), DeviceKind::Cpu, 2);
    assert_eq!(addresses(&inventory.units), ["cores:0-1", "cores:2-3"]);
    assert_eq!(variables(&inventory, &[1]), "VLLM_CPU_OMP_THREADS_BIND=2-3");
    assert_eq!(variables(&inventory, &[0, 1]), "VLLM_CPU_OMP_THREADS_BIND=0-1|2-3");
}

#[test]
fn this_machine_has_an_inventory() {
    let probe = Probe::of_machine(crate::telemetry::Environment::new());
    let inventory = inventory(&probe, DeviceKind::Cpu, 0);
    assert!(!inventory.units.is_empty(), "{inventory:#?}");
}
