//! What is said of a decision, against the decision: generated rules and flows, in search of a disagreement.

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use redirector::{
    config::{FlowSpec, Transport},
    kernel::flow_of,
    matcher::{Placed, account, compile},
};
use redirector_ebpf::PROTOCOL_TCP;
use redirector_tests::scale;

use crate::model::generated::{INGRESS, packet, present, specification};

#[test]
fn description_and_decision_agree_about_generated_rules() {
    let rules = prop_oneof![5 => vec(specification(), 1..8), 2 => vec(specification(), 8..40)];
    let mut config = Config { cases: scale::cases(), max_shrink_iters: 2_000, ..Config::default() };
    config.failure_persistence = None;
    let outcome = TestRunner::new(config).run(
        &(rules, vec(packet(), 50), 0..INGRESS.len()),
        |(specifications, packets, by)| {
            let ingress = INGRESS[by];
            let rules: Vec<_> =
                specifications.iter().enumerate().map(|(number, one)| one.rule(number)).collect();
            let interfaces: Vec<_> = rules.iter().map(|(rule, _)| present(rule)).collect();
            let placed = rules.iter().zip(&interfaces).zip(0..);
            let placed: Vec<_> = placed
                .map(|(((rule, _), interfaces), index)| Placed { interfaces, ..Placed::new(rule, index) })
                .collect();
            let image = compile(placed.iter().copied()).expect("few rules");
            for packet in packets {
                let (source, destination) = packet.ends(&rules);
                let is_tcp = packet.protocol == PROTOCOL_TCP;
                let protocol = if is_tcp { Transport::Tcp } else { Transport::Udp };
                let asked = FlowSpec { protocol, source, destination, device: None };
                let decided = image.decide(&flow_of(&asked, ingress)).map(|decision| decision.rule);
                let told = account(&placed, (&asked, ingress), decided);
                let told =
                    told.map_err(|error| TestCaseError::fail(format!("{asked} by {ingress}: {error}")))?;
                prop_assert_eq!(
                    told.decides.map(|cell| &cell.rule.name),
                    decided.map(|index| &rules[index as usize].0.name)
                );
                if decided.is_none() {
                    prop_assert_eq!(told.before.len(), rules.len());
                }
                prop_assert!(told.before.iter().all(|missed| !missed.to_string().is_empty()));
                // And nothing else can be told of it.
                for other in (0..placed.len() as u32).map(Some).chain([None]).filter(|one| *one != decided) {
                    prop_assert!(account(&placed, (&asked, ingress), other).is_err(), "{asked}: {other:?}");
                }
            }
            Ok(())
        },
    );
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
