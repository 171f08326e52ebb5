//! `exec --render`, where others put something in the way: nothing is written through it, nothing hangs, and nothing is
//! steered.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink},
    path::{Path, PathBuf},
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use redirector_tests::exec::{Exec, Stage};

use super::exec::failure;

/// Debian's `nobody`, and its group.
const NOBODY: (u32, u32) = (65534, 65534);

/// A directory of nobody's, who is the attacker.
fn of_nobody(stage: &Stage) -> PathBuf {
    let path = stage.dir.join("nobodys");
    fs::create_dir(&path).unwrap();
    chown(&path, Some(NOBODY.0), Some(NOBODY.1)).unwrap();
    path
}

/// Something in the way, by its name.
type Obstacle = (&'static str, fn(&Path));

/// What nobody may put in the way.
const OBSTACLES: [Obstacle; 5] = [
    ("symbolic link", |file| symlink("../secret", file).unwrap()),
    ("symbolic link", |file| symlink("/nonexistent/file", file).unwrap()),
    ("symbolic link", |file| symlink("/dev/null", file).unwrap()),
    ("FIFO", |file| mkfifo(file, Mode::S_IRWXU).unwrap()),
    ("directory", |file| fs::create_dir(file).unwrap()),
];

#[test]
fn a_link_a_fifo_or_a_directory_in_the_way_is_refused_and_nothing_is_steered() {
    for stage in Stage::both() {
        let directory = of_nobody(&stage);
        let secret = stage.dir.join("secret");
        fs::write(&secret, "secret").unwrap();
        let file = directory.join("rendered");
        let template = stage.program("template", "{port}");
        for (kind, make) in OBSTACLES {
            make(&file);
            lchown(&file, Some(NOBODY.0), Some(NOBODY.1)).unwrap();
            for user in ["", "--user nobody"] {
                let outcome = stage.run(&format!("{user} --render {template}={}", file.display()), &["true"]);
                let said = failure(&outcome);
                assert!(said.contains(kind) && said.contains(file.to_str().unwrap()), "{outcome}");
                stage.assert_forgotten();
            }
            assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
            let left: Vec<_> =
                fs::read_dir(&directory).unwrap().map(|one| one.unwrap().file_name()).collect();
            assert_eq!(left, ["rendered"], "what was there stays, and nothing comes");
            fs::remove_file(&file).or_else(|_| fs::remove_dir(&file)).unwrap();
        }
        // Devices are root's.
        let outcome = stage.run(&format!("--render {template}=/dev/full"), &["true"]);
        assert!(failure(&outcome).contains("a device"), "{outcome}");
        stage.assert_forgotten();
    }
}

#[test]
fn a_file_is_written_with_the_rights_of_cmds_user() {
    for stage in Stage::both() {
        let template = stage.program("template", "{port}");
        // Where root may write, and nobody may not.
        let file = stage.dir.join("rendered");
        let outcome = stage.run(&format!("--user nobody --render {template}={}", file.display()), &["true"]);
        assert!(failure(&outcome).contains(file.to_str().unwrap()), "{outcome}");
        assert!(!file.exists());
        // Not through a folder that leads to one of root's either.
        let directory = of_nobody(&stage);
        symlink(stage.dir.path(), directory.join("away")).unwrap();
        let through = directory.join("away/rendered");
        let outcome =
            stage.run(&format!("--user nobody --render {template}={}", through.display()), &["true"]);
        assert!(failure(&outcome).contains("away/rendered"), "{outcome}");
        assert!(!file.exists());
        stage.assert_forgotten();
        // Where nobody may, the file is nobody's.
        let file = directory.join("rendered");
        let options = format!("--match tcp:80 --user nobody --render {template}={}", file.display());
        let cmd = Exec::start(
            &mut stage.exec(&options, &["sh", "-c", "cat $1; echo; exec cat", "sh", file.to_str().unwrap()]),
        );
        cmd.line().parse::<u16>().unwrap();
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), NOBODY);
    }
}

#[test]
fn a_file_that_is_there_is_replaced_whole_and_keeps_mode_and_owner() {
    for stage in Stage::both() {
        let template = stage.program("template", "new {port}\n");
        let file = stage.dir.join("rendered");
        fs::write(&file, "old\n".repeat(1000)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        chown(&file, None, Some(NOBODY.1)).unwrap();
        let old = fs::File::open(&file).unwrap();
        let outcome =
            stage.run(&format!("--render {template}={}", file.display()), &["cat", file.to_str().unwrap()]);
        assert!(outcome.clone().success().stdout.starts_with("new "), "{outcome}");
        let now = fs::metadata(&file).unwrap();
        assert_eq!((now.mode() & 0o777, now.gid()), (0o640, NOBODY.1));
        // Who has the old one open does not see half of the new one.
        assert_ne!(old.metadata().unwrap().ino(), now.ino());
        assert_eq!(old.metadata().unwrap().len(), 4000);
    }
}

#[test]
fn a_template_that_cannot_be_filled_leaves_the_file_as_it_was() {
    for stage in Stage::both() {
        let directory = stage.dir.join("directory");
        fs::create_dir(&directory).unwrap();
        let file = directory.join("rendered");
        fs::write(&file, "old").unwrap();
        let template = stage.program("template", "{fd4}");
        let before = changed(&directory);
        // There are no fds with `--listen-as`.
        let options = format!("--listen-as 8080 --render {template}={}", file.display());
        let outcome = stage.run(&options, &["true"]);
        assert!(failure(&outcome).contains("{fd4}"), "{outcome}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
        // Nor was there, for a moment, a file that a kill would have left.
        assert_eq!(changed(&directory), before);
        stage.assert_forgotten();
    }
}

/// When a name came or went last.
fn changed(directory: &Path) -> (i64, i64) {
    let metadata = fs::metadata(directory).unwrap();
    (metadata.mtime(), metadata.mtime_nsec())
}
