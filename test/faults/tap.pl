# A network device whose frames pass through standard input and output: two bytes of length, then the frame. The device lives as long as the
# process, which ends with its input. Says a frame of no bytes when the device is there.
#
#     perl tap.pl e0
use strict;
use warnings;

my ($name) = @ARGV;
open(my $tap, '+<', '/dev/net/tun') or die "/dev/net/tun: $!\n";
# TUNSETIFF, with IFF_TAP | IFF_NO_PI.
ioctl($tap, 0x400454ca, pack('Z16 s x22', $name, 0x1002)) or die "TUNSETIFF: $!\n";

sub put {
  my ($bytes) = @_;
  while (length $bytes) {
    my $written = syswrite(STDOUT, $bytes) or exit;
    substr($bytes, 0, $written, '');
  }
}

put(pack('n', 0));
my $input = '';
while (1) {
  my $ready = '';
  vec($ready, fileno($_), 1) = 1 for $tap, \*STDIN;
  select($ready, undef, undef, undef);
  if (vec($ready, fileno($tap), 1) && sysread($tap, my $frame, 65535)) {
    put(pack('n', length $frame) . $frame);
  }
  next unless vec($ready, fileno(STDIN), 1);
  sysread(STDIN, $input, 65536, length $input) or exit;
  while (length $input >= 2) {
    my $length = unpack('n', $input);
    last if length $input < 2 + $length;
    # A device that is down takes no frame, as a cable without a plug.
    syswrite($tap, substr($input, 2, $length));
    substr($input, 0, 2 + $length, '');
  }
}
