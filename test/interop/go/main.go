// A peer of go-libp2p for the interop suite, driven by JSON lines: one command a line on standard input, one answer or event a line on
// standard output. Its options are one JSON object, the only argument.
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	mh "github.com/multiformats/go-multihash"
)

type options struct {
	Listen string `json:"listen"`
	Kad    string `json:"kad"`
	Mdns   bool   `json:"mdns"`
	Relay  bool   `json:"relay"`
	Stock  bool   `json:"stock"`
}

type command struct {
	ID       int    `json:"id"`
	Op       string `json:"op"`
	Addr     string `json:"addr"`
	Peer     string `json:"peer"`
	Key      string `json:"key"`
	Path     string `json:"path"`
	Value    string `json:"value"`
	Sequence uint64 `json:"sequence"`
	Quorum   int    `json:"quorum"`
	Protocol string `json:"protocol"`
	Bytes    int64  `json:"bytes"`
	Mode     string `json:"mode"`
	Count    int    `json:"count"`
}

type object = map[string]any

var output sync.Mutex

func say(line object) {
	output.Lock()
	defer output.Unlock()
	text, _ := json.Marshal(line)
	fmt.Println(string(text))
}

// --8<-- host
// A host that joins a network of Codio nodes: TCP, Noise and Yamux, and Kademlia in server mode under the network's own protocol.
func newHost(opts options) (host.Host, error) {
	choices := []libp2p.Option{
		libp2p.ListenAddrStrings(opts.Listen),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.UserAgent("codio-interop-go/1"),
		libp2p.EnableRelay(),
		libp2p.EnableHolePunching(),
	}
	// --8<-- end
	if !opts.Stock {
		choices = append(choices, libp2p.ProtocolVersion("/codio/1.0.0"))
	}
	if opts.Relay {
		choices = append(choices, libp2p.EnableRelayService(), libp2p.ForceReachabilityPublic())
	}
	// What bounds strangers is not what the suite looks at.
	choices = append(choices, libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableMetrics())
	return libp2p.New(choices...)
}

// --8<-- dht
func newDHT(h host.Host, kad string) (*dht.IpfsDHT, error) {
	return dht.New(h,
		dht.Mode(dht.ModeServer),
		// The prefix must not be /ipfs, which allows no validators of one's own.
		dht.ProtocolPrefix("/codio"),
		dht.V1ProtocolOverride(protocol.ID(kad)),
		dht.NamespacedValidator("codio", codioValidator{}),
	)
}

// The CID that makes go-libp2p-kad-dht send exactly these bytes as the key of a provider record.
func keyCid(key []byte) cid.Cid {
	return cid.NewCidV1(cid.Raw, mh.Multihash(key))
}

// --8<-- end

type node struct {
	host host.Host
	dht  *dht.IpfsDHT
}

func (n *node) HandlePeerFound(found peer.AddrInfo) {
	say(object{"event": "mdns", "peer": found.ID.String()})
}

func main() {
	ctx := context.Background()
	var opts options
	if err := json.Unmarshal([]byte(os.Args[1]), &opts); err != nil {
		panic(err)
	}
	h, err := newHost(opts)
	if err != nil {
		panic(err)
	}
	n := &node{host: h}
	if opts.Kad != "" {
		if n.dht, err = newDHT(h, opts.Kad); err != nil {
			panic(err)
		}
	}
	h.Network().Notify(&network.NotifyBundle{
		ConnectedF: func(_ network.Network, c network.Conn) {
			say(object{"event": "connected", "peer": c.RemotePeer().String(), "addr": c.RemoteMultiaddr().String()})
		},
		DisconnectedF: func(_ network.Network, c network.Conn) {
			say(object{"event": "disconnected", "peer": c.RemotePeer().String()})
		},
	})
	serve(h)
	if opts.Mdns {
		if err := mdns.NewMdnsService(h, "", n).Start(); err != nil {
			panic(err)
		}
	}
	say(object{"event": "ready", "peer": h.ID().String(), "addresses": addresses(h)})

	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 1<<20), 1<<20)
	for lines.Scan() {
		var c command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			panic(err)
		}
		go func() {
			ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
			defer cancel()
			result, err := n.run(ctx, c)
			if err != nil {
				say(object{"id": c.ID, "error": err.Error()})
			} else {
				result["id"] = c.ID
				say(result)
			}
		}()
	}
	h.Close()
}

func addresses(h host.Host) []string {
	own, _ := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()})
	texts := []string{}
	for _, a := range own {
		texts = append(texts, a.String())
	}
	return texts
}

func millis(since time.Time) float64 {
	return float64(time.Since(since).Microseconds()) / 1000
}

func (n *node) run(ctx context.Context, c command) (object, error) {
	ctx = network.WithAllowLimitedConn(ctx, "interop")
	id, _ := peer.Decode(c.Peer)
	switch c.Op {
	case "addresses":
		return object{"addresses": addresses(n.host)}, nil
	case "connect":
		info, err := peer.AddrInfoFromString(c.Addr)
		if err != nil {
			return nil, err
		}
		return object{"peer": info.ID.String()}, n.host.Connect(ctx, *info)
	case "disconnect":
		return object{}, n.host.Network().ClosePeer(id)
	case "peers":
		peers := []object{}
		for _, conn := range n.host.Network().Conns() {
			peers = append(peers, object{
				"peer": conn.RemotePeer().String(), "addr": conn.RemoteMultiaddr().String(),
				"outbound": conn.Stat().Direction == network.DirOutbound,
			})
		}
		return object{"peers": peers}, nil
	case "identify":
		agent, err := n.host.Peerstore().Get(id, "AgentVersion")
		if err != nil {
			return nil, err
		}
		version, _ := n.host.Peerstore().Get(id, "ProtocolVersion")
		protocols, _ := n.host.Peerstore().GetProtocols(id)
		return object{"agent": agent, "version": version, "protocols": protocols}, nil
	case "ping":
		result := <-ping.Ping(ctx, n.host, id)
		return object{"millis": float64(result.RTT.Microseconds()) / 1000}, result.Error
	case "kad-peers":
		return object{"count": n.dht.RoutingTable().Size()}, nil
	case "provide":
		key, _ := hex.DecodeString(c.Key)
		began := time.Now()
		err := n.dht.Provide(ctx, keyCid(key), true)
		return object{"millis": millis(began)}, err
	case "find":
		key, _ := hex.DecodeString(c.Key)
		providers := []object{}
		began := time.Now()
		var first any
		for found := range n.dht.FindProvidersAsync(ctx, keyCid(key), 20) {
			if first == nil {
				first = millis(began)
			}
			texts := []string{}
			for _, a := range found.Addrs {
				texts = append(texts, a.String())
			}
			providers = append(providers, object{"peer": found.ID.String(), "addresses": texts})
		}
		return object{"providers": providers, "millis": millis(began), "firstMillis": first}, nil
	case "put":
		value, _ := hex.DecodeString(c.Value)
		sealed, err := seal(n.host, c.Path, c.Sequence, value)
		if err != nil {
			return nil, err
		}
		return object{}, n.dht.PutValue(ctx, "/codio/"+n.host.ID().String()+"/"+c.Path, sealed)
	case "get":
		bytes, err := n.dht.GetValue(ctx, "/codio/"+c.Path, dht.Quorum(c.Quorum))
		if err != nil {
			return nil, err
		}
		publisher, value, err := open(bytes)
		if err != nil {
			return nil, err
		}
		return object{"publisher": publisher.String(), "sequence": value.Sequence, "value": hex.EncodeToString(value.Value)}, nil
	case "reserve":
		info, err := peer.AddrInfoFromString(c.Addr)
		if err != nil {
			return nil, err
		}
		if err := n.host.Connect(ctx, *info); err != nil {
			return nil, err
		}
		if _, err := client.Reserve(ctx, n.host, *info); err != nil {
			return nil, err
		}
		return object{"addr": c.Addr + "/p2p-circuit/p2p/" + n.host.ID().String()}, nil
	case "stream":
		return n.stream(ctx, id, c)
	case "streams":
		count := 0
		for _, conn := range n.host.Network().ConnsToPeer(id) {
			for _, s := range conn.GetStreams() {
				if s.Protocol() == protocol.ID(c.Protocol) && s.Stat().Direction == network.DirInbound {
					count++
				}
			}
		}
		return object{"count": count}, nil
	case "crowd":
		return crowd(ctx, c.Addr, c.Count)
	}
	return nil, fmt.Errorf("no such command: %s", c.Op)
}

// Connects from as many hosts of their own, all at once, and tells how many are still connected after a second.
func crowd(ctx context.Context, addr string, count int) (object, error) {
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		return nil, err
	}
	hosts := make([]host.Host, count)
	for i := range hosts {
		if hosts[i], err = newHost(options{Listen: "/ip4/127.0.0.1/tcp/0"}); err != nil {
			return nil, err
		}
		defer hosts[i].Close()
	}
	began := time.Now()
	var all sync.WaitGroup
	for _, h := range hosts {
		all.Add(1)
		go func() {
			defer all.Done()
			h.Connect(ctx, *info)
		}()
	}
	all.Wait()
	millis := time.Since(began).Milliseconds()
	time.Sleep(time.Second)
	connected := 0
	for _, h := range hosts {
		if h.Network().Connectedness(info.ID) == network.Connected {
			connected++
		}
	}
	return object{"connected": connected, "millis": millis}, nil
}
