"""`make install` puts down what pkg-config, the compiler, the linker and the command's own search for its object find."""
import os
import subprocess
from pathlib import Path

import fcgi
import servers
from guard import pool

ROOT = Path(__file__).parents[2]


def make(target, prefix):
    subprocess.run(["make", "-s", target, f"PREFIX={prefix}"], cwd=ROOT, check=True, capture_output=True, timeout=30,
                   env={k: v for k, v in os.environ.items() if k != "MAKEFLAGS"})


def test_installed_tree_works_and_goes_again(folder, fcgiguard):
    prefix = f"{folder}/usr"
    make("install", prefix)
    env = {**os.environ, "PKG_CONFIG_PATH": f"{prefix}/lib/pkgconfig"}
    flags = subprocess.run([servers.need("pkg-config", "pkg-config"), "--cflags", "--libs", "fcgiguard"], env=env, check=True,
                           capture_output=True, text=True).stdout.split()
    (Path(folder) / "a.c").write_text("#include <fcgiguard.h>\nint main(void) { return 0; }\n")
    subprocess.run(["cc", "-Wall", "-Werror", "-o", f"{folder}/a", f"{folder}/a.c", *flags], check=True)
    assert subprocess.run([f"{folder}/a"], env={**os.environ, "LD_LIBRARY_PATH": f"{prefix}/lib"}).returncode == 0

    address = f"{folder}/s"
    with pool(f"{prefix}/bin/fcgiguard", folder, address, 1, [servers.PERL, servers.APPS / "app.pl"]) as manager:
        worker = fcgi.request(address).pid
        assert f"{prefix}/lib/fcgiguard/libfcgiguard_worker.so" in Path(f"/proc/{worker}/maps").read_text(), manager.output()

    make("uninstall", prefix)
    assert [f for f in Path(prefix).rglob("*") if f.is_file()] == []
