import os, re, subprocess, time
def application(environ, start_response):
    query = environ.get("QUERY_STRING", "")
    wanted = re.search(r"sleep=(\d+)", query)
    if wanted: time.sleep(int(wanted.group(1)) / 1000)
    child = subprocess.check_output("grep SigBlk /proc/self/status", shell=True).decode() if "child" in query else ""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [("ok %d %s" % (os.getpid(), child)).encode()]
