package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
)

// --8<-- value
// A value of /codio/<peer id>/<name>, the payload of libp2p's signed envelope:
// [8 bytes sequence, big-endian][2 bytes length of the key, big-endian][key][value]
type codioValue struct {
	Sequence uint64
	Key      string
	Value    []byte
}

func (v *codioValue) Domain() string { return "codio-value" }
func (v *codioValue) Codec() []byte  { return []byte("/codio/value") }
func (v *codioValue) MarshalRecord() ([]byte, error) {
	out := binary.BigEndian.AppendUint64(nil, v.Sequence)
	out = binary.BigEndian.AppendUint16(out, uint16(len(v.Key)))
	return append(append(out, v.Key...), v.Value...), nil
}
func (v *codioValue) UnmarshalRecord(in []byte) error {
	if len(in) < 10 || len(in) < 10+int(binary.BigEndian.Uint16(in[8:])) {
		return errors.New("too short")
	}
	end := 10 + int(binary.BigEndian.Uint16(in[8:]))
	v.Sequence, v.Key, v.Value = binary.BigEndian.Uint64(in), string(in[10:end]), in[end:]
	return nil
}

// Seals a value of this host, to be put under the key it names.
func seal(h host.Host, name string, sequence uint64, value []byte) ([]byte, error) {
	key := "/codio/" + h.ID().String() + "/" + name
	envelope, err := record.Seal(&codioValue{sequence, key, value}, h.Peerstore().PrivKey(h.ID()))
	if err != nil {
		return nil, err
	}
	return envelope.Marshal()
}

// Opens a sealed value; fails unless the publisher that its key names has signed it.
func open(sealed []byte) (peer.ID, *codioValue, error) {
	value := &codioValue{}
	envelope, err := record.ConsumeTypedEnvelope(sealed, value)
	if err != nil {
		return "", nil, err
	}
	publisher, err := peer.IDFromPublicKey(envelope.PublicKey)
	if err == nil && !strings.HasPrefix(value.Key, "/codio/"+publisher.String()+"/") {
		err = errors.New("signed by another peer than the key names")
	}
	return publisher, value, err
}

// The rules of the namespace, which the DHT asks before it stores or believes a value.
type codioValidator struct{}

func (codioValidator) Validate(key string, sealed []byte) error {
	_, value, err := open(sealed)
	if err == nil && value.Key != key {
		err = errors.New("belongs under another key")
	}
	return err
}

func (codioValidator) Select(_ string, values [][]byte) (int, error) {
	best, sequence := -1, uint64(0)
	for i, sealed := range values {
		_, value, err := open(sealed)
		if err != nil {
			continue
		}
		wins := best < 0 || value.Sequence > sequence ||
			value.Sequence == sequence && bytes.Compare(sealed, values[best]) > 0
		if wins {
			best, sequence = i, value.Sequence
		}
	}
	if best < 0 {
		return 0, errors.New("none is valid")
	}
	return best, nil
}

// --8<-- end
