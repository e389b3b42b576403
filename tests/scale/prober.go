// A prober as it is usually written in Go: one goroutine for each target, a deadline, the same packet and the same judgement of its answer.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

func main() {
	folder := os.Args[1]
	count, _ := strconv.Atoi(os.Args[2])
	packet := []byte{1, 9, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	begun := time.Now()
	var lock sync.Mutex
	var all sync.WaitGroup
	var last time.Duration
	healthy, others := 0, 0
	for n := 0; n < count; n++ {
		all.Add(1)
		go func(path string) {
			defer all.Done()
			ok := false
			if c, err := net.DialTimeout("unix", path, 2*time.Second); err == nil {
				c.SetDeadline(begun.Add(2 * time.Second))
				head := make([]byte, 8)
				if _, err = c.Write(packet); err == nil {
					_, err = io.ReadFull(c, head)
					ok = err == nil && head[0] == 1 && head[1] == 10
				}
				c.Close()
			}
			lock.Lock()
			if ok {
				healthy++
				last = time.Since(begun)
			} else {
				others++
			}
			lock.Unlock()
		}(fmt.Sprintf("%s/%d", folder, n))
	}
	all.Wait()
	fmt.Printf("%d healthy in %.1fms, %d others, all in %.1fs\n", healthy, float64(last.Microseconds())/1000, others, time.Since(begun).Seconds())
}
