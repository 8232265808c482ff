# SPDX-License-Identifier: Apache-2.0
# State: perl with nested data, a closure, a compiled expression and a handler.
use strict;
use warnings;

$| = 1;
my %words = map { ($_ => [map { int rand 1e9 } 1 .. 5]) } 'a' .. 'z';
my $sum = sub { my $total = 0; $total += $_ for map { @$_ } values %words; $total };
my $secret = join '-', $sum->(), map { $words{$_}[0] } sort keys %words;
my $pattern = qr/^(\d+)-(\d+)/;
my $came = 0;
$SIG{USR1} = sub { ++$came };

sub check {
  my $before = $came;
  kill USR1 => $$;
  my ($total, $first) = $secret =~ $pattern;
  $came > $before && $total == $sum->() && $first == $words{a}[0] ? 'ok' : 'wrong';
}

my %answers = (ping => sub { 'pong' }, 'secret?' => sub { $secret }, 'check?' => \&check);
print "ready\n";
while (my $line = <STDIN>) {
  chomp $line;
  print $answers{$line}->(), "\n";
}
