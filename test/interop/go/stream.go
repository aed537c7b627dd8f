package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const (
	echoProtocol  = "/codio/test/echo/1.0.0"
	drainProtocol = "/codio/test/drain/1.0.0"
	slowProtocol  = "/codio/test/slow/1.0.0"
	sinkProtocol  = "/codio/test/sink/1.0.0"
	resetProtocol = "/codio/test/reset/1.0.0"
)

// What streams carry: bytes of a fixed pattern whose period is a prime, so that a piece that is lost, doubled or out of order shows.
const period = 65521

var pattern = func() []byte {
	bytes := make([]byte, 2*period)
	for i := range bytes {
		j := uint64(i % period)
		bytes[i] = byte(j*j*31 + j)
	}
	return bytes
}()

func patternAt(offset int64, length int) []byte {
	start := int(offset % period)
	return pattern[start : start+length]
}

type checked struct {
	bytes  int64
	intact bool
	err    error
}

// Reads to the end, and compares with the pattern.
func drain(s io.Reader, pause time.Duration) checked {
	result := checked{intact: true}
	buffer := make([]byte, 32*1024)
	for {
		count, err := s.Read(buffer)
		if count > 0 {
			result.intact = result.intact && string(buffer[:count]) == string(patternAt(result.bytes, count))
			result.bytes += int64(count)
			if pause > 0 {
				time.Sleep(pause)
			}
		}
		if errors.Is(err, io.EOF) {
			return result
		}
		if err != nil {
			result.err = err
			return result
		}
	}
}

func fill(s io.Writer, bytes int64) error {
	for sent := int64(0); sent < bytes; {
		length := min(int64(period), bytes-sent)
		if _, err := s.Write(patternAt(sent, int(length))); err != nil {
			return err
		}
		sent += length
	}
	return nil
}

func report(s network.Stream, result checked) {
	line := object{
		"event": "received", "protocol": string(s.Protocol()), "peer": s.Conn().RemotePeer().String(), "bytes": result.bytes,
		"intact": result.intact,
	}
	if result.err != nil {
		line["error"] = result.err.Error()
	}
	say(line)
}

func serve(h host.Host) {
	// Sends back what comes, and ends when the other side does.
	h.SetStreamHandler(echoProtocol, func(s network.Stream) {
		if _, err := io.Copy(s, s); err != nil {
			s.Reset()
			return
		}
		s.Close()
	})
	// Ends its own half first, then reads.
	h.SetStreamHandler(drainProtocol, func(s network.Stream) {
		s.CloseWrite()
		report(s, drain(s, 0))
	})
	h.SetStreamHandler(slowProtocol, func(s network.Stream) {
		s.CloseWrite()
		report(s, drain(s, 2*time.Millisecond))
	})
	// Reads, and ends its own half last.
	h.SetStreamHandler(sinkProtocol, func(s network.Stream) {
		report(s, drain(s, 0))
		s.Close()
	})
	// Resets in the middle.
	h.SetStreamHandler(resetProtocol, func(s network.Stream) {
		io.ReadFull(s, make([]byte, 1024))
		s.Reset()
	})
}

// Opens a stream and does what the mode says; answers with what came back.
func (n *node) stream(ctx context.Context, to peer.ID, c command) (object, error) {
	s, err := n.host.NewStream(ctx, to, protocol.ID(c.Protocol))
	if err != nil {
		return nil, err
	}
	began := time.Now()
	var back checked
	switch c.Mode {
	case "echo", "slow": // writes and reads at once, ends its half when all is written
		written := make(chan error, 1)
		go func() {
			err := fill(s, c.Bytes)
			if err == nil {
				err = s.CloseWrite()
			}
			written <- err
		}()
		pause := time.Duration(0)
		if c.Mode == "slow" {
			pause = 2 * time.Millisecond
		}
		back = drain(s, pause)
		if err := <-written; err != nil {
			return nil, err
		}
	case "send": // waits for the other half to end, then writes
		back = drain(s, 0)
		if back.err != nil {
			break
		}
		if err := fill(s, c.Bytes); err != nil {
			return nil, err
		}
		if err := s.CloseWrite(); err != nil {
			return nil, err
		}
	case "reset": // writes, and resets in the middle
		if err := fill(s, c.Bytes); err != nil {
			return nil, err
		}
		time.Sleep(100 * time.Millisecond)
		s.Reset()
	case "await": // writes, and waits for what the other side does
		if err := fill(s, c.Bytes); err != nil {
			return nil, err
		}
		back = drain(s, 0)
	}
	if back.err == nil && c.Mode != "reset" {
		s.Close()
	}
	result := object{"bytes": back.bytes, "intact": back.intact, "millis": time.Since(began).Milliseconds()}
	if back.err != nil {
		result["reset"] = back.err.Error()
	}
	return result, nil
}
