//! What programs and rule sets cost in the kernel, and how one takes the place of another.

use super::*;

#[test]
fn a_namespace_with_few_rules_takes_little_kernel_memory() {
    let bench = Bench::with(16, Ingress::Read);
    let cpus = possible_cpus();
    // Each CPU beyond two has counters of its own. Before Linux 6.4 a map takes whole pages, in what the kernel says of it.
    let pages = if Version::running() < Version(6, 4) { 5 } else { 0 };
    let allowed = 32 * 1024 + (cpus.max(2) - 2) * 17 * size_of::<Counters>() + pages * 4096;
    let port = |number: usize| 80 + 4000 * number;
    let specs: [(&str, &dyn Fn(usize) -> serde_json::Value); 3] = [
        ("a port each", &|number| json!({ "match": [format!("tcp:{}", port(number))] })),
        (
            "two ports each",
            &|number| json!({ "match": [format!("tcp:{},{}", port(number), port(number) + 363)] }),
        ),
        ("a service each", &|number| {
            json!({
                "match": [format!("tcp:10.{number}.0.0/16:{}", 80 + number)],
                "from": [format!("192.168.{number}.0/24")],
            })
        }),
    ];
    for (what, spec) in specs {
        let rules: Vec<_> = (0..16)
            .map(|number| {
                let mut spec = spec(number);
                spec["to"] = json!(["127.0.0.1:1"]);
                (rule_of(&format!("rule{number}"), spec), false)
            })
            .collect();
        bench.publish(&rules);
        let memory = bench.instance.kernel_memory().expect("ask the kernel");
        println!("16 rules, {what}: {memory} bytes of kernel memory");
        assert!(memory <= allowed as u64, "{what}: {memory} bytes, {cpus} CPUs");
    }
}

/// An instruction takes the verifier some 0.4 µs on the machines that this was measured on.
#[test]
fn the_verifier_walks_what_the_rules_need() {
    let cases = [
        (json!([]), 1_500),
        (json!([{ "match": ["any:80-90"] }]), 1_500),
        (json!([{ "match": ["tcp:10.0.0.0/8:80"] }]), 4_000),
        (json!([{ "match": ["tcp:80"], "from": ["10.0.0.0/8", "fd00::/8"] }]), 12_000),
        (json!([{ "match": ["tcp:80"], "interface": ["lo"] }]), 3_000),
        (
            json!([
                { "match": ["tcp:80"], "interface": ["lo"] },
                { "match": ["any:10.0.0.0/8:80", "any:[fd00::/8]:80"], "from": ["10.0.0.0/8", "fd00::/8"] },
            ]),
            20_000,
        ),
    ];
    for (mut specs, most) in cases {
        let specs = specs.as_array_mut().expect("an array").iter_mut().zip(0..);
        let rules: Vec<_> = specs
            .map(|(spec, number)| {
                spec["to"] = json!(["127.0.0.1:1"]);
                (rule_of(&format!("rule{number}"), spec.take()), false)
            })
            .collect();
        let by_name = placed(&rules).map(|one| Placed { interfaces: &[1], ..one });
        let rule_set: RuleSet = compile(by_name).expect("few rules").into();
        let instance = Instance::load_with(&Arc::default(), &rule_set, 1, Ingress::Read).expect("load");
        match instance.verified_instructions().expect("ask the kernel") {
            Some(walked) => {
                println!("{walked} instructions of {most} for {rules:?}");
                assert!(walked <= most, "{walked} instructions for {rules:?}");
            }
            None => assert!(Version::running() < Version(5, 16)),
        }
    }
}

#[test]
fn a_program_is_replaced_by_one_that_looks_at_more_and_serves_what_looks_at_less() {
    needs!(TestRun);
    let bench = Bench::new();
    let by_source = json!({ "match": ["tcp:80"], "from": ["192.0.2.0/24"], "to": ["reject"] });
    let by_destination = json!({ "match": ["tcp:198.51.100.0/24:80"], "to": ["reject"] });
    let by_port = json!({ "match": ["tcp:80"], "to": ["reject"] });
    let program = || bench.instance.program_id().expect("ask the kernel");
    let mut programs = vec![program()];
    for (spec, from, to) in [
        (&by_port, "203.0.113.1:1", "203.0.113.2:80"),
        (&by_source, "192.0.2.1:1", "203.0.113.2:80"),
        (&by_destination, "203.0.113.1:1", "198.51.100.1:80"),
        (&by_port, "203.0.113.1:1", "203.0.113.2:80"),
    ] {
        bench.publish(&[(rule_of("one", spec.clone()), false)]);
        programs.push(program());
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        assert_eq!(bench.run(&flow(from, to)), Verdict::Drop, "{spec}");
        assert_eq!(bench.run(&flow(from, at(to.ip(), 81))), Verdict::Pass, "{spec}");
    }
    let is_other: Vec<_> = programs.windows(2).map(|pair| pair[0] != pair[1]).collect();
    assert_eq!(is_other, [false, true, true, false], "{programs:?}");
}

#[test]
fn equal_rule_sets_are_in_the_kernel_once() {
    needs!(TestRun);
    let shared = Arc::<redirector::kernel::Shared>::default();
    let instances: [Instance; 2] = std::array::from_fn(|_| {
        Instance::load_with(&shared, &RuleSet::default(), 1, Ingress::Read).expect("load the program")
    });
    let published = |rules: &[(Rule, bool)]| {
        // Each namespace has compiled its own.
        let rule_sets = [(); 2].map(|()| shared.rule_sets.with(compile(placed(rules)).expect("few rules")));
        let ids = std::array::from_fn(|number| {
            instances[number].publish(&rule_sets[number], 0).expect("publish");
            instances[number].rule_set_id().expect("ask the map").expect("published")
        });
        for instance in &instances {
            let verdict = instance.test_run(&flow(CLIENT, at(POD_V4, 80)), 1).expect("run").verdict;
            assert_eq!(verdict, 0);
        }
        ids
    };
    let [one, two]: [u32; 2] = published(&[(rule("same", &["tcp:80"], "reject", "reject"), false)]);
    assert_eq!(one, two);
    let [three, four] = published(&[(rule("same", &["tcp:80-81"], "reject", "reject"), false)]);
    assert_eq!(three, four);
    assert_ne!(one, three);
}

/// CPUs that there can be: each has per-CPU values.
fn possible_cpus() -> usize {
    let possible = std::fs::read_to_string("/sys/devices/system/cpu/possible").expect("the possible CPUs");
    let last = possible.trim().rsplit(['-', ',']).next().and_then(|last| last.parse::<usize>().ok());
    last.expect("a number") + 1
}
