//! What the tests run inside containers: one static executable that needs nothing of the image. `tests/images/make` compiles it with rustc alone.

use std::{
    env, fs,
    io::{self, Read, Write},
    process::{Command, Stdio, exit},
    thread,
    time::Duration,
};

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["sleep"] => loop {
            thread::sleep(Duration::from_secs(3600));
        },
        ["exit", code] => exit(code.parse().unwrap()),
        ["echo", text] => println!("{text}"),
        ["both", out, err] => {
            print!("{out}");
            eprint!("{err}");
        }
        ["cat"] => {
            io::copy(&mut io::stdin(), &mut io::stdout()).unwrap();
        }
        // Ends with 0 when stdin does.
        ["until-eof"] => {
            println!("reading");
            io::stdin().read_to_end(&mut Vec::new()).unwrap();
            println!("end of stdin");
        }
        ["env", name] => println!("{}", env::var(name).unwrap_or_default()),
        ["pwd"] => println!("{}", env::current_dir().unwrap().display()),
        ["status"] => print!("{}", fs::read_to_string("/proc/self/status").unwrap()),
        ["limits"] => print!("{}", fs::read_to_string("/proc/self/limits").unwrap()),
        ["mounts"] => print!("{}", fs::read_to_string("/proc/self/mountinfo").unwrap()),
        ["interfaces"] => print!("{}", fs::read_to_string("/proc/net/dev").unwrap()),
        ["list", path] => {
            let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            println!("{names:?}");
        }
        ["write", path] => match fs::write(path, "x") {
            Ok(()) => println!("written"),
            Err(error) => println!("{}", error.raw_os_error().unwrap_or_default()),
        },
        ["run", path] => match Command::new(path).arg("echo").arg("ran").status() {
            Ok(_) => {}
            Err(error) => println!("{}", error.raw_os_error().unwrap_or_default()),
        },
        // How many children could be started before the first refusal.
        ["fork", count] => {
            let me = env::current_exe().unwrap();
            let start = || Command::new(&me).arg("sleep").stdin(Stdio::null()).stdout(Stdio::null()).spawn();
            let mut children = Vec::new();
            for _ in 0..count.parse().unwrap() {
                match start() {
                    Ok(child) => children.push(child),
                    Err(_) => break,
                }
            }
            println!("{}", children.len());
            for mut child in children {
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
        ["eat", mib] => {
            println!("eating");
            let mut eaten = Vec::new();
            for _ in 0..mib.parse().unwrap() {
                eaten.push(vec![1_u8; 1 << 20]);
            }
            println!("ate {} MiB", eaten.len());
        }
        ["flood", mib] => {
            let chunk = vec![b'x'; 1 << 20];
            for _ in 0..mib.parse().unwrap() {
                io::stdout().write_all(&chunk).unwrap();
            }
        }
        other => {
            eprintln!("probe: unknown: {other:?}");
            exit(2);
        }
    }
}
