// Go's net/http/fcgi hello. usage: hello SOCKET [BYTES]
package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/fcgi"
	"os"
	"strconv"
)

func main() {
	size := 100
	if len(os.Args) > 2 {
		size, _ = strconv.Atoi(os.Args[2])
	}
	body := bytes.Repeat([]byte("x"), size)
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		panic(err)
	}
	fcgi.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/plain")
		w.Write(body)
	}))
}
