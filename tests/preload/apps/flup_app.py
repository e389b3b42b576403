# flup, threaded: select on a duplicate of descriptor 0, requests in other threads.
import atexit, os, re, subprocess, sys, time
from flup.server.fcgi import WSGIServer
atexit.register(lambda: sys.stderr.write("END ran\n"))
def app(environ, start_response):
    query = environ.get("QUERY_STRING", "")
    wanted = re.search(r"sleep=(\d+)", query)
    if wanted: time.sleep(int(wanted.group(1)) / 1000)
    child = subprocess.check_output("grep SigBlk /proc/self/status", shell=True).decode() if "child" in query else ""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [("ok %d %s" % (os.getpid(), child)).encode()]
WSGIServer(app).run()
