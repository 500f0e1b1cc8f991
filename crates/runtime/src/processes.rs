//! Processes that nobody has a handle on any more, found by what they were started with and ended.

use std::{path::PathBuf, time::Duration};

use rustix::process::{Pid, Signal, kill_process};

/// How often, and with which pause, what was killed is looked for again: it may have started others, and it takes a moment
/// to go.
const ROUNDS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(5);

/// Kills the processes of this machine whose command line or environment (`file`: `cmdline` or `environ`) has all of
/// `words` among its strings, and what they started meanwhile. Blocks until they are gone; `false` if some stay.
pub(crate) fn end_all(file: &str, words: &[&[u8]]) -> bool {
    for _ in 0..ROUNDS {
        let found = find(file, words);
        if found.is_empty() {
            return true;
        }
        for pid in found {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(PAUSE);
    }
    false
}

fn find(file: &str, words: &[&[u8]]) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let own = rustix::process::getpid();
    let pid = |path: PathBuf| Pid::from_raw(path.file_name()?.to_str()?.parse().ok()?);
    let has = |pid: &Pid| {
        // A zombie's is empty.
        let text = std::fs::read(format!("/proc/{}/{file}", pid.as_raw_nonzero())).unwrap_or_default();
        words.iter().all(|word| text.split(|byte| *byte == 0).any(|part| part == *word))
    };
    entries.flatten().filter_map(|entry| pid(entry.path())).filter(|pid| *pid != own && has(pid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_found_by_their_words_and_ended() {
        let word = format!("{}.5", 1000 + std::process::id());
        let mut child = std::process::Command::new("/bin/sleep").arg(&word).env("KEELSON_WORD", &word).spawn().unwrap();
        let variable = format!("KEELSON_WORD={word}");
        assert_eq!(find("cmdline", &[b"sleep", word.as_bytes()]).len(), 0, "the name is a path");
        assert_eq!(find("environ", &[variable.as_bytes()]), [Pid::from_child(&child)]);
        // Reaps it, which `end_all` waits for.
        let reaper = std::thread::spawn(move || child.wait());
        assert!(end_all("cmdline", &[b"/bin/sleep", word.as_bytes()]));
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&reaper.join().unwrap().unwrap()), Some(9));
    }
}
