//! The name server that Docker puts into its containers: a rule for every port takes from it.

use crate::setting::Setting;

#[test]
fn a_rule_that_takes_what_is_for_dockers_name_server_is_warned_of() {
    let setting = Setting::new("docker");
    let engine = &setting.engine;
    engine.client(&["network", "create", "own"]);
    engine.run("named", &["--network", "own"]);
    // One on the default network asks the host's.
    engine.run("plain", &[]);
    let attach = |container: &str, options: &[&str]| {
        let (target, to) = (engine.target(container), setting.proxy.destination());
        let words = ["attach", &target, "--name", "all", "--match", "tcp:*", "--to", &to];
        let answer = setting.cli().json(&[&words, options].concat());
        let warnings = answer["warnings"].as_array().expect("warnings").clone();
        warnings
            .iter()
            .filter(|text| text.as_str().is_some_and(|text| text.contains("name server of Docker")))
            .count()
    };
    assert_eq!(attach("plain", &[]), 0);
    assert_eq!(attach("named", &[]), 1);
    assert_eq!(attach("named", &["--except", "tcp:127.0.0.11:*"]), 0);
}
