//! Unit tests of the module `progress`.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use indicatif::{ProgressDrawTarget, TermLike};

use super::*;

#[test]
fn remaining_time_follows_from_the_records_that_are_done() {
    let elapsed = Duration::from_secs(10);
    assert_eq!(
        time_left(100, Some(400), elapsed),
        Some(Duration::from_secs(30))
    );
    assert_eq!(time_left(0, Some(400), elapsed), None);
    assert_eq!(time_left(100, None, elapsed), None);
    assert_eq!(time_left(5, Some(5), elapsed), Some(Duration::ZERO));
}

/// A terminal that keeps the last line.
#[derive(Debug, Clone, Default)]
struct Screen(Arc<Mutex<String>>);

impl TermLike for Screen {
    fn width(&self) -> u16 {
        120
    }

    fn move_cursor_up(&self, _: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn write_line(&self, line: &str) -> std::io::Result<()> {
        self.write_str(line)
    }

    fn write_str(&self, text: &str) -> std::io::Result<()> {
        self.0.lock().push_str(text);
        Ok(())
    }

    fn clear_line(&self) -> std::io::Result<()> {
        self.0.lock().clear();
        Ok(())
    }

    fn flush(&self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn bar_of_each_task_has_its_own_name_and_length() {
    let screen = Screen::default();
    let target = ProgressDrawTarget::term_like_with_hz(Box::new(screen.clone()), 255);
    let mut bar = TaskBar::new(ProgressBar::with_draw_target(None, target));
    let sample = ProgressSample {
        rejects: Some(3),
        reconstruction_error: Some("0.0075".to_owned()),
        ..ProgressSample::default()
    };
    let mut draw = |task: &TaskProgress| {
        bar.draw(task, &sample);
        if !task.name.is_empty() {
            screen.0.lock().clear();
            bar.bar.force_draw();
        }
        screen.0.lock().trim_end().to_owned()
    };
    let mut task = TaskProgress::default();
    assert_eq!(draw(&task), "", "there is no task yet");
    task.name = "reading".to_owned();
    task.done = 1200;
    task.note = "a.csv".to_owned();
    let line = draw(&task);
    assert!(
        line.starts_with("reading  ") && line.contains(" 1,200 records  "),
        "{line}"
    );
    assert!(
        line.ends_with("/s  a.csv  3 rejected  error 0.0075"),
        "{line}"
    );
    task.total = Some(2400);
    assert!(
        draw(&task).contains(" 1,200/2,400 records  "),
        "{}",
        draw(&task)
    );
    let copying = TaskProgress {
        name: "copying".to_owned(),
        unit: ProgressUnit::Bytes,
        done: 1 << 20,
        ..TaskProgress::default()
    };
    let copied = draw(&copying);
    assert!(
        copied.contains(" 1.00 MiB  ") && !copied.contains("left"),
        "the total of an earlier task does not apply: {copied}"
    );
    let measuring = TaskProgress {
        name: "measuring".to_owned(),
        ..TaskProgress::default()
    };
    let measured = draw(&measuring);
    assert!(
        !measured.contains("MiB") && !measured.contains("records"),
        "{measured}"
    );
}
