//! What a load costs in the verifier.

use std::sync::Arc;

use redirector::{
    config::RuleSpec,
    kernel::{Ingress, Instance, RuleSet},
    matcher::{Placed, compile},
    sys::bpf::{Instruction, sk_lookup_program},
};
use serde_json::{Value, json};

use crate::{
    Outcome,
    figures::{spread, timed},
};

/// What a load costs in the verifier, by what the rules look at, beside a program that does nothing.
pub(crate) fn loads() -> Outcome<Vec<Value>> {
    const TIMES: usize = 20;
    let nothing = [Instruction::from_parts(0xb7, 0, 0, 1), Instruction::from_parts(0x95, 0, 0, 0)];
    let median = |load: &mut dyn FnMut() -> Outcome<()>| -> Outcome<f64> {
        let mut all = Vec::new();
        for _ in 0..TIMES {
            let (done, took) = timed(&mut *load);
            done?;
            all.push(took);
        }
        Ok(spread(all).0)
    };
    let floor = median(&mut || Ok(sk_lookup_program(&nothing, "nothing").map(drop)?))?;
    println!("a load of a program that does nothing: {floor:.2} ms");
    let mut rows = Vec::new();
    for (what, matches, from) in [
        ("ports", vec!["any:80"], vec![]),
        ("destinations, IPv4", vec!["tcp:10.0.0.0/8:80"], vec![]),
        ("sources, both families", vec!["tcp:80"], vec!["10.0.0.0/8", "fd00::/8"]),
        (
            "destinations and sources",
            vec!["tcp:10.0.0.0/8:80", "tcp:[fd00::/8]:80"],
            vec!["10.0.0.0/8", "fd00::/8"],
        ),
    ] {
        let spec = json!({ "match": matches, "from": from, "to": ["original"] });
        let spec: RuleSpec = serde_json::from_value(spec)?;
        let rule = spec.named("bench".parse()?);
        let rule_set: RuleSet = compile([Placed::new(&rule, 0)])?.into();
        let shared = Arc::default();
        let mut walked = None;
        let took = median(&mut || {
            let instance = Instance::load_with(&shared, &rule_set, 1, Ingress::Read)?;
            walked = instance.verified_instructions()?;
            Ok(())
        })?;
        let walked = walked.map_or_else(|| "?".to_owned(), |walked| walked.to_string());
        println!("a load for rules that name {what}: {took:.2} ms, {walked} instructions verified");
        rows.push(json!({ "rules": what, "ms": took, "verified": walked }));
    }
    Ok(rows)
}
