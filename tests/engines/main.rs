//! Tests with real containers: Docker's and Podman's, each test with an engine of its own.

mod bad_input;
mod collector;
mod destinations;
mod discover;
mod examples;
mod files;
mod follow;
mod name_server;
mod setting;
mod targets;

/// A test for each engine, in a module that has the test's name.
macro_rules! for_each_engine {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[test]
            fn docker() {
                super::$name("docker");
            }

            #[test]
            fn podman() {
                super::$name("podman");
            }
        }
    )+};
}
use for_each_engine;

/// What a specification that gives no figure means by "at once", for what an engine has a part in.
const AT_ONCE: std::time::Duration = std::time::Duration::from_secs(3);
