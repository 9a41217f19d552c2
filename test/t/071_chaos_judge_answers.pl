# The judge of chaos runs, like 070: the rules for single answers, 7 to 12, and histories that are of no use.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use JudgedHistory;
use Test::More;

# ---- rule 7: a stop is told ----

breaks(7, 'not told by a heartbeat', <<~HISTORY, qr/was not told of its stop/);
	$BEGUN
	2 30-40 request_stop - a1 => committed true
	1 50-60 heartbeat - a1 => committed continue
	$GOES_ON
	HISTORY
breaks(7, 'not told with a step', <<~HISTORY, qr/was not told of its stop/);
	$BEGUN
	2 30-40 request_stop_for_chat A => committed a1 a1
	1 50-60 record_step - a1 1 => committed continue
	$GOES_ON
	HISTORY
breaks(7, 'not told to who waits for it', <<~HISTORY, qr/was not told of its stop/);
	$BEGUN
	2 30-40 request_stop_for_chat A => committed a1
	1 50-60 await_stop - a1 => committed null
	$GOES_ON
	HISTORY
breaks(7, 'not told in the life after', <<~HISTORY, qr/was not told of its stop/);
	F 5 kill_worker
	U 9 1
	$BEGUN
	2 30-40 request_stop - a1 => committed true
	1 50-60 record_step - a1 1 => committed continue
	F 70 kill_worker
	U 80 2
	S 81 2 a1 aborted $BOOT
	= a1 aborted $BOOT
	HISTORY
fine('not told because it came meanwhile, or was taken back, or the server went down, or the write failed', <<~HISTORY);
	1 10-20 begin_run A => committed began a1
	1 30-40 begin_run B => committed began b1
	1 50-60 begin_run C => committed began c1
	1 70-80 begin_run D => committed began d1
	2 90-100 request_stop - a1 => committed true
	3 99-110 heartbeat - a1 => committed continue
	2 120-130 request_stop - b1 => rolled_back true
	3 140-150 heartbeat - b1 => committed continue
	2 160-170 request_stop - d1 => committed true
	3 171-172 heartbeat - d1 => committed null
	2 175-180 request_stop - c1 => committed true
	F 185 kill_postmaster
	3 190-195 heartbeat - c1 => committed continue
	U 200 1
	S 201 1 a1 aborted $BOOT
	S 201 1 b1 aborted $BOOT
	S 201 1 c1 aborted $BOOT
	S 201 1 d1 aborted $BOOT
	= a1 aborted $BOOT
	= b1 aborted $BOOT
	= c1 aborted $BOOT
	= d1 aborted $BOOT
	HISTORY
fine('told though it was rolled back, or failed, or is only under way', <<~HISTORY);
	1 10-20 begin_run A => committed began a1
	2 30-40 request_stop - a1 => rolled_back true
	1 41-45 heartbeat - a1 => committed stop
	1 50-60 begin_run B => committed began b1
	2 70-80 request_stop_for_chat B => rolled_back 57014
	1 85-90 await_stops - - web => committed {a1,b1}
	1 95-100 begin_run C => committed began c1
	1 110-120 await_stop - c1 => committed stop
	2 119-130 supersede_run C c1 => committed timeout
	= a1 running
	= b1 running
	= c1 running
	HISTORY
for my $call ('heartbeat - a1 => committed stop', 'await_stop - a1 => committed stop',
	'await_stops - - web => committed {a1}')
{
	breaks(7, "a stop that nobody had asked for: $call", <<~HISTORY, qr/nobody had asked for the stop/);
		$BEGUN
		2 25-30 supersede_run A a9 => committed mismatch a1
		2 31-32 request_stop_for_chat B => committed null
		1 40-50 $call
		2 60-70 request_stop - a1 => committed true
		$GOES_ON
		HISTORY
}
breaks(7, 'nothing to stop in an active run', <<~HISTORY, qr/was active, but there was nothing to stop/);
	$BEGUN
	2 30-40 request_stop - a1 => committed false
	1 50-60 get_run - a1 => committed running a1
	$GOES_ON
	HISTORY
breaks(7, 'nothing to stop in a chat with an active run', <<~HISTORY, qr/was active, but there was nothing to stop/);
	$BEGUN
	2 30-40 request_stop_for_chat A => committed null
	1 50-60 get_run - a1 => committed running a1
	$GOES_ON
	HISTORY
fine('nothing to stop where the end may be deferred, or only come', <<~HISTORY);
	1 10-20 begin_run A => committed began a1
	1 25-30 finalize_run - a1 error => committed deferred - failed
	2 31-40 request_stop - a1 => committed false
	2 41-45 request_stop_for_chat A => committed null
	1 50-60 get_run - a1 => committed running a1
	1 70-80 begin_run B => committed began b1
	2 79-90 request_stop - b1 => committed false
	2 91-95 request_stop - b1 => rolled_back 57014
	1 96-98 get_run - b1 => committed running b1
	= a1 failed
	= b1 running
	HISTORY
breaks(7, 'stopped after its end', <<~HISTORY, qr/was to be stopped after its end/);
	$BEGUN
	1 30-40 finalize_run - a1 completed => committed finalized
	2 50-60 request_stop - a1 => committed true
	= a1 succeeded
	HISTORY
breaks(7, 'stopped through its chat after its end', <<~HISTORY, qr/was to be stopped after its end/);
	$BEGUN
	1 30-40 finalize_run - a1 completed => committed finalized
	2 50-60 request_stop_for_chat A => committed a1 a1
	= a1 succeeded
	HISTORY
breaks(7, 'stopped and never begun', <<~HISTORY, qr/was to be stopped, but was never begun/);
	1 10-20 begin_run A => rolled_back began a1
	2 50-60 request_stop - a1 => committed true
	$OTHER
	HISTORY

# ---- rule 8: signals are true ----

breaks(8, 'finalized, but active in the end', <<~HISTORY, qr/is running, but was seen as ended/);
	$BEGUN
	1 30-40 heartbeat - a1 => committed finalized
	$GOES_ON
	HISTORY
breaks(8, 'finalized, but running later', <<~HISTORY, qr/had ended, and was active later/);
	$BEGUN
	2 22-60 finalize_run - a1 completed => committed finalized
	1 30-40 record_step - a1 1 => committed finalized
	1 50-55 get_run - a1 => committed running a1
	= a1 succeeded
	HISTORY
breaks(8, 'finalized, but never begun', <<~HISTORY, qr/was seen, but is not in the table/);
	1 10-20 begin_run A => rolled_back began a1
	1 30-40 await_stop - a1 => committed finalized
	$OTHER
	HISTORY
for my $call ('heartbeat - a1 => committed not_found', 'record_step - a1 1 => committed not_found',
	'await_stop - a1 => committed not_found', 'await_run - a1 => committed not_found',
	'finalize_run - a1 error => committed not_found', 'get_run - a1 => committed none')
{
	breaks(8, "begun and not found: $call", <<~HISTORY, qr/was begun, but not found/);
		$BEGUN
		2 30-40 $call
		$GOES_ON
		HISTORY
	fine("begun meanwhile and not found: $call", <<~HISTORY);
		$BEGUN
		2 15-40 $call
		$GOES_ON
		HISTORY
}
for my $call ('heartbeat - a1 => committed continue', 'record_step - a1 1 => committed stop',
	'await_stop - a1 => committed stop', 'await_stops - - web => committed {a1}')
{
	breaks(8, "a signal after the end: $call", <<~HISTORY, qr/had ended, but its signal is/);
		$BEGUN
		2 21-29 request_stop_for_chat B => committed null
		2 30-60 finalize_run - a1 completed => committed finalized
		3 40-50 request_stop - a1 => rolled_back true
		3 70-80 $call
		= a1 succeeded
		HISTORY
	breaks(8, "a signal without a run: $call", <<~HISTORY, qr/was never begun, but has a signal/);
		1 10-20 begin_run A => rolled_back began a1
		2 30-40 $call
		$OTHER
		HISTORY
	breaks(8, "a signal before its run: $call", <<~HISTORY, qr/was begun only later, but has a signal/);
		1 20-25 request_stop - a1 => committed true
		2 22-30 $call
		1 40-50 begin_run A a1 given => committed began a1
		$GOES_ON
		HISTORY
	fine("a signal while it ends: $call", <<~HISTORY);
		1 10-20 begin_run A => committed began a1
		3 25-50 request_stop - a1 => rolled_back true
		2 30-60 finalize_run - a1 completed => committed finalized
		4 24-65 $call
		5 40-45 get_run - a1 => committed succeeded a1
		6 59-65 $call
		= a1 succeeded
		HISTORY
}
fine('shared memory learns of an end after those who look at the row, but before the finalizer', <<~HISTORY);
	$BEGUN
	2 30-60 finalize_run - a1 completed => committed finalized
	1 40-45 get_run - a1 => committed succeeded a1
	1 50-55 heartbeat - a1 => committed continue
	= a1 succeeded
	HISTORY

# ---- rule 9: busy is true ----

for my $call ('begin_run A => rolled_back RN409', 'try_begin_run A => committed busy',
	'try_begin_run A => rolled_back busy')
{
	my $out = breaks(9, "one that had ended: $call", <<~HISTORY, qr/was in the way, but it had ended before/);
		$ENDED
		2 50-60 $call a1
		= a1 succeeded
		HISTORY
	like($out, qr/^\tclient-1.history:4: R\t40\t2\tcommitted\tfinalized\t/m, 'which is proved by who has ended it');
	breaks(9, "one that was never begun: $call", <<~HISTORY, qr/was in the way, but it was never begun/);
		1 10-20 begin_run A => rolled_back began a1
		2 50-60 $call a1
		$OTHER
		HISTORY
	breaks(9, "one that was begun only later: $call", <<~HISTORY, qr/was in the way, but it was begun only later/);
		2 20-30 $call a1
		1 40-50 begin_run A => committed began a1
		$GOES_ON
		HISTORY
	breaks(9, "one of another chat: $call", <<~HISTORY, qr/was in the way, but it is in another chat/);
		1 40-50 begin_run B => committed began b1
		2 60-70 $call b1
		= b1 running
		HISTORY
	breaks(9, "no one: $call", <<~HISTORY, qr/was busy, but none of its runs was active/);
		$ENDED
		2 50-60 $call
		1 70-80 begin_run A => committed began a2
		= a1 succeeded
		= a2 running
		HISTORY
	fine("one that may be there: $call", <<~HISTORY);
		1 10-20 begin_run A => committed began a1
		1 30-40 finalize_run - a1 completed => committed finalized
		2 39-60 $call a1
		3 19-35 $call
		4 15-35 $call a1
		= a1 succeeded
		HISTORY
	excused(9, "one that is being superseded: $call", <<~HISTORY);
		$ENDED
		3 35-70 supersede_run A a1 => committed superseded a2
		2 50-60 $call a1
		= a1 succeeded
		= a2 running
		HISTORY
	breaks(9, "one that had ended, though another is being superseded: $call", <<~HISTORY, qr/it had ended before/);
		$ENDED
		3 45-70 supersede_run A a3 => committed began a2
		2 50-60 $call a1
		= a1 succeeded
		= a2 running
		HISTORY
	breaks(9, "one that had ended, after it was superseded: $call", <<~HISTORY, qr/it had ended before/);
		$ENDED
		3 35-45 supersede_run A a1 => committed superseded a2
		2 50-60 $call a1
		= a1 succeeded
		= a2 running
		HISTORY
	excused(9, "no one, while one is being superseded: $call", <<~HISTORY);
		$ENDED
		F 45 cancel_backend
		3 35-70 supersede_run A a1 => rolled_back 57014
		2 50-60 $call
		= a1 succeeded
		HISTORY
}
fine('one that is there for longer than another one, begun later', <<~HISTORY);
	1 10-30 begin_run A => committed began a1
	F 12 terminate_backend
	2 15-18 begin_run A a2 given => unknown lost
	2 19-25 finalize_run - a2 aborted => unknown lost
	2 26-29 get_run - a2 => committed aborted a2
	3 50-60 try_begin_run A => committed busy
	= a2 aborted
	= a1 running
	HISTORY
excused(9, 'one that is being superseded by a session that is not gone yet', <<~HISTORY);
	$ENDED
	F 45 terminate_backend
	3 35-47 supersede_run A a1 => unknown lost
	2 50-60 begin_run A => rolled_back RN409
	2 61-62 begin_run A => rolled_back RN409 a1
	= a1 succeeded
	HISTORY
for my $begin ('begin_run A =>', 'try_begin_run A =>', 'begin_run A a2 given =>', 'try_begin_run A a2 given =>')
{
	breaks(9, "a slot that was taken: $begin", <<~HISTORY, qr/was begun while run .* was active/);
		$BEGUN
		2 30-40 $begin committed began a2
		1 50-60 finalize_run - a1 completed => committed finalized
		= a1 succeeded
		= a2 running
		HISTORY
	fine("a slot that may have been free: $begin", <<~HISTORY);
		$BEGUN
		2 30-40 $begin committed began a2
		1 35-60 finalize_run - a1 completed => committed finalized
		= a1 succeeded
		= a2 running
		HISTORY
	fine("a slot that was free for who has applied what was deferred, and taken back: $begin", <<~HISTORY);
		$BEGUN
		1 21-25 finalize_run - a1 error => committed deferred - failed
		2 30-40 $begin rolled_back began a2
		1 50-60 get_run - a1 => committed running a1
		= a1 failed
		HISTORY
}
breaks(9, 'a slot that was taken by one whose end was rolled back', <<~HISTORY, qr/was begun while run .* was active/);
	$BEGUN
	2 30-40 begin_run A => committed began a2
	1 50-60 finalize_run - a1 completed => rolled_back finalized
	F 65 terminate_backend
	1 70-80 finalize_run - a1 completed => unknown lost
	= a1 succeeded
	= a2 running
	HISTORY
for my $again ('begin_run A a2 given => committed began', 'try_begin_run A a2 given => committed resumed')
{
	fine("no slot is needed to resume: $again", <<~HISTORY);
		1 10-20 begin_run A a2 given => committed began a2
		1 21-25 finalize_run - a2 error => committed finalized
		1 30-40 begin_run A => committed began a1
		1 41-45 $again a2
		1 51-55 get_run - a1 => committed running a1
		= a2 failed
		= a1 running
		HISTORY
}

# ---- rule 10: supersede_run ----

breaks(10, 'the target goes on', <<~HISTORY, qr/was seen as ended|has not ended/);
	$BEGUN
	2 30-40 supersede_run A a1 => committed superseded a2
	2 41-50 finalize_run - a2 aborted => committed finalized
	= a2 aborted
	= a1 running
	HISTORY
breaks(10, 'begun without a target, which goes on', <<~HISTORY, qr/has not ended/);
	$BEGUN
	2 30-40 supersede_run A a1 => committed began a2
	2 41-50 finalize_run - a2 aborted => committed finalized
	= a2 aborted
	= a1 running
	HISTORY
breaks(10, 'the target goes on for a while', <<~HISTORY, qr/had ended, and was active later/);
	$BEGUN
	2 30-40 supersede_run A a1 => committed superseded a2
	3 25-60 finalize_run - a1 aborted => committed finalized
	1 45-50 get_run - a1 => committed running a1
	= a1 aborted
	= a2 running
	HISTORY
breaks(10, 'there is no target', <<~HISTORY, qr/was seen, but is not in the table|has not ended/);
	1 30-40 supersede_run A a1 => committed superseded a2
	= a2 running
	HISTORY
fine('begun without a target', <<~HISTORY);
	1 30-40 supersede_run A a1 => committed began a2
	1 41-50 finalize_run - a2 error => committed finalized
	1 60-70 supersede_run A a2 => committed began a3
	= a2 failed
	= a3 running
	HISTORY
breaks(10, 'the new run is not there', <<~HISTORY, qr/no new run was begun/);
	$BEGUN
	1 21-25 finalize_run - a1 error => committed finalized
	2 30-40 supersede_run A a1 => committed began a2
	= a1 failed
	HISTORY
breaks(10, 'there is no new run', <<~HISTORY, qr/no new run was begun/);
	$ENDED
	2 30-40 supersede_run A a1 => committed superseded
	= a1 succeeded
	HISTORY
breaks(10, 'the new run is the target', <<~HISTORY, qr/no new run was begun/);
	2 30-40 supersede_run A a1 => committed began a1
	2 50-60 finalize_run - a1 completed => committed finalized
	= a1 succeeded
	HISTORY
breaks(4, 'the new run is in another chat', <<~HISTORY, qr/was begun in another chat/);
	$ENDED
	2 50-60 supersede_run A a1 => committed began b1
	= a1 succeeded
	= b1 running
	HISTORY
breaks(10, 'the slot was taken by another', <<~HISTORY, qr/was begun while run .* was active/);
	$BEGUN
	2 30-40 supersede_run A a3 => committed began a2
	1 50-60 finalize_run - a1 completed => committed finalized
	= a1 succeeded
	= a2 running
	HISTORY
breaks(10, 'one in the way that had ended', <<~HISTORY, qr/was in the way, but it had ended before/);
	$ENDED
	2 50-60 supersede_run A a9 => committed mismatch a1
	= a1 succeeded
	HISTORY
breaks(10, 'one in the way that was never begun', <<~HISTORY, qr/was in the way, but it was never begun/);
	$BEGUN
	2 50-60 supersede_run A a1 => committed mismatch a2
	$GOES_ON
	HISTORY
breaks(10, 'the target in the way', <<~HISTORY, qr/was in the way of itself/);
	$BEGUN
	2 50-60 supersede_run A a1 => committed mismatch a1
	$GOES_ON
	HISTORY
breaks(10, 'another in the way, and there is none', <<~HISTORY, qr/was in the way, but none was active/);
	$ENDED
	2 50-60 supersede_run A a9 => committed mismatch
	= a1 succeeded
	HISTORY
breaks(10, 'a timeout with a run', <<~HISTORY, qr/in spite of the timeout/);
	$BEGUN
	2 30-40 supersede_run A a1 => committed timeout a1
	$GOES_ON
	HISTORY
breaks(4, 'begun in spite of a timeout', <<~HISTORY, qr/was begun by nobody/);
	$ENDED
	2 30-40 supersede_run A a1 => committed timeout
	= a1 succeeded
	= a2 running
	HISTORY

# ---- rule 11: nobody waits for ever ----

breaks(11, 'clients are stuck', <<~HISTORY, qr/clients are stuck: in begin_run/);
	$BEGUN
	P 1001 clients_stuck in begin_run
	HISTORY
breaks(11, 'an end awaited in vain', <<~HISTORY, qr/its end was awaited in vain/);
	$ENDED
	2 50-60 await_run - a1 => committed null
	= a1 succeeded
	HISTORY
my $out = fine('an end that came too late', <<~HISTORY);
	$ENDED
	2 35-36 await_run - a1 => committed null
	3 35-1000060 await_run - a1 => committed null
	5 37-38 await_run - a1 => committed null
	4 50-1000070 await_run - a1 => committed succeeded
	= a1 succeeded
	HISTORY
like($out, qr/missed an end for more than a second: 1$/m, 'which is counted if it is strange');
breaks(11, 'a call without an answer, and its client was not killed', <<~HISTORY, qr/more calls than that have no answer/);
	$BEGUN
	F 25 kill_client
	2 30- await_run - a1
	3 30- await_run - a1
	$GOES_ON
	HISTORY

# ---- rule 12: answers and errors ----

breaks(12, 'a connection lost without a reason', <<~HISTORY, qr/connection was lost, though nothing had been broken/);
	$BEGUN
	F 25 cancel_backend
	1 30-40 get_run - a1 => unknown lost
	F 50 terminate_backend
	$GOES_ON
	HISTORY

# One call after the other: "fault" or "call => end outcome", "!" in front of what is wrong.
sub errors_are_judged
{
	my ($what, @list) = @_;
	my $text = "1 10-20 begin_run A => committed began a1\n1 21-22 begin_run B b1 given => committed began b1\n"
	  . "= a1 running\n= b1 running\n";
	my $time = 100;
	my @wrong;
	for my $item (@list)
	{
		my ($wrong, $call, $answer) = $item =~ /^(!?)(.*?)(?: => (.*))?$/;
		if (!defined $answer)
		{
			$text .= $call =~ /^(kill|stop)_/ ? "F 1 $call\nU 2 1\n" : "F @{[$time++]} $call\n";
			next;
		}
		for my $outcome (split ' ', $answer)
		{
			my ($from, $to) = ($time++, $time++);
			my $end = $outcome =~ /^[0-9A-Z]{5}$/ ? 'rolled_back' : 'committed';
			my ($name) = split ' ', $call;
			push @wrong, "$name $outcome" if $wrong;
			$text .= "1 $from-$to $call => $end $outcome\n";
		}
	}
	my ($status, $out) = judge(write_history($text));
	my @found = map { s/^(\S+) (?:must not raise (\S+) here|does not return "(.*)")$/"$1 " . ($2 \/\/ $3)/er }
	  $out =~ /^violation of rule 12 \([^)]+\): (.*)$/gm;
	is_deeply([ $status, @found ], [ @wrong ? 1 : 0, @wrong ], $what) or diag $out;
	is(rules_in($out), @wrong ? '12' : '', "$what: no other rule");
	return;
}

my @ALL = ('begin_run A', 'try_begin_run A', 'record_step - a1 1', 'heartbeat - a1', 'request_stop - a1',
	'request_stop_for_chat A', 'finalize_run - a1 error', 'supersede_run A a1', 'await_run - a1', 'await_stop - a1',
	'await_stops - - web', 'get_active_for_chat A', 'get_run - a1', 'attach_runner - - web');
my @READS = grep { /^(await|get)_/ } @ALL;
my @NOTES = grep { /^(record_step|heartbeat) / } @ALL;
my @BEGINS = grep { /begin_run / } @ALL;
my @STOPS = grep { /^request_stop/ } @ALL;
my @FREE = (@BEGINS, grep { /^(supersede_run|attach_runner)/ } @ALL);

my $NEVER = 'XX000 XX001 XX002 25001 25006 25P02 55000 57P04 57P05 RN410 23503 23514 22004 42883 53200 53300 58030 0A000';
errors_are_judged('errors that are never right', map { "!$_ => $NEVER" } @ALL);
errors_are_judged('cancels and serialization failures', map { "$_ => 57014 40001" } @ALL);
errors_are_judged('ended sessions, and nobody has ended them', 'cancel_backend',
	map { "!$_ => 57P01 57P02 57P03 08006" } @ALL);
for my $fault (qw(terminate_backend kill_backend stop_fast))
{
	errors_are_judged("ended sessions after $fault", $fault, map { "$_ => 57P01 57P02 57P03 08006" } @ALL);
}
errors_are_judged('a full disk, and it was not', 'lock_table', map { "!$_ => 53100" } @ALL);
errors_are_judged('a full disk', 'full_disk', (map { "!$_ => 53100" } @READS, @NOTES),
	(map { "$_ => 53100" } @FREE, @STOPS, 'finalize_run - a1 error'));
errors_are_judged('locks that nobody holds', (map { "!$_ => 55P03" } @READS, @NOTES, @STOPS),
	(map { "!$_ => 40P01" } @READS, @NOTES), (map { "$_ => 55P03 40P01" } @FREE), (map { "$_ => 40P01" } @STOPS));
errors_are_judged('a lock of rows', 'lock_rows', (map { "!$_ => 55P03" } @READS, @NOTES), (map { "$_ => 55P03" } @STOPS));
errors_are_judged('a lock of the table', 'lock_table', (map { "!$_ => 55P03" } @NOTES),
	(map { "$_ => 55P03" } @READS, @STOPS));
errors_are_judged('an end that should have been deferred', 'lock_rows', '!finalize_run - a1 error => 55P03');
errors_are_judged('and 40P01', '!finalize_run - a1 error => 40P01');
errors_are_judged('and RN500', '!finalize_run - a1 error => RN500');
errors_are_judged('an end that could not be deferred', 'lock_table', 'finalize_run - a1 error => 55P03 40P01 RN500');
errors_are_judged('an end that another finalizer had deferred', 'finalize_run - a1 error => 57014 55P03');
errors_are_judged('an end that a departure had deferred', 'attach_runner - - web => 1',
	'finalize_run - a1 error => 55P03');
errors_are_judged('error RN500', 'lock_table', map { "!$_ => RN500" } grep { !/^finalize_run/ } @ALL);
errors_are_judged('error RN409', 'begin_run A => RN409', map { "!$_ => RN409" } grep { !/^begin_run/ } @ALL);
errors_are_judged('error 23505', (map { "!$_ => 23505" } @ALL, 'begin_run B b1 given', 'begin_run C c1 given'),
	'begin_run C b1 given => 23505', 'try_begin_run C b1 given => 23505');
errors_are_judged('error 22023', (map { "!$_ => 22023" } @ALL), 'supersede_run A b1 => 22023');
errors_are_judged('error 55006, and nobody has the name', '!attach_runner - - web => 55006', 'attach_runner - - web => 1',
	'!attach_runner - - other => 55006');
errors_are_judged('error 55006', 'attach_runner - - web => 1', 'attach_runner - - web => 55006');
errors_are_judged('error 55006 of others', 'attach_runner - - web => 1', map { "!$_ => 55006" } grep { !/^attach/ } @ALL);
errors_are_judged('words that they do not know', map { "!$_ => perhaps" } @ALL);
errors_are_judged('words of others', map { "!$_" } 'begin_run A => null', 'try_begin_run A => null',
	'record_step - a1 1 => true', 'heartbeat - a1 => deferred', 'request_stop - a1 => null',
	'request_stop_for_chat A => true', 'finalize_run - a1 error => null', 'supersede_run A a1 => busy null',
	'await_run - a1 => true', 'await_stop - a1 => true', 'await_stops - - web => true',
	'get_active_for_chat A => null', 'get_run - a1 => null', 'attach_runner - - web => null');

# ---- histories of no use ----

my $FINE = "$BEGUN\n$GOES_ON\n";
for my $case (
	[ 'no client', "F 5 kill_worker\nU 6 1\n$GOES_ON", qr/no call/ ],
	[ 'the driver did not end', "$FINE\nwithout end", qr/the driver has not come to the end of its faults/ ],
	[ 'the clients may still be there', "$FINE\nwithout P", qr/nothing says what became of the clients/ ],
	[ 'no table', "$BEGUN\nA 10 1 a1 - running", qr/no table/ ],
	[ 'no audit', "$BEGUN\nT a1 running", qr/no audit/ ],
	[ 'a life that does not begin', "$FINE\nF 30 kill_worker", qr/the last life of the server has not begun/ ],
	[ 'a life that nothing has begun', "$FINE\nF 30 terminate_backend\nU 40 1", qr/driver.history:\d+: nothing has ended/ ],
	[ 'lives out of order', "$FINE\nF 30 kill_worker\nU 40 2", qr/driver.history:\d+: this should be life 1/ ],
	[ 'a snapshot of another life', "$FINE\nF 30 kill_worker\nU 40 1\nS 41 2 a1 running", qr/driver.history:\d+: life 2/ ],
	[ 'a snapshot of the first life', "S 31 1 a1 running\n$FINE", qr/driver.history:1: life 1 has not begun/ ],
	[ 'a snapshot of no server', "F 30 stop_fast\nS 31 1 a1 running\n$FINE", qr/driver.history:2: life 1 has not/ ],
	[ 'an unknown fault', "$FINE\nF 30 flood", qr/driver.history:\d+: unknown fault "flood"/ ],
	[ 'an unknown phase', "$FINE\nP 1001 lunch", qr/driver.history:\d+: unknown phase "lunch"/ ],
	[ 'an unknown status', "$FINE\nT b1 done", qr/driver.history:\d+: unknown status "done"/ ],
	[ 'an unknown status in the audit', "$FINE\nA 90 9 a1 running done", qr/driver.history:\d+: unknown status "done"/ ],
	[ 'an audit without order', "$FINE\nA 90 soon a1 running failed", qr/driver.history:\d+: "soon" is no number/ ],
	[ 'an audit of nothing', "$FINE\nA 90 9 - running failed", qr/driver.history:\d+: a change of which run/ ],
	[ 'a run twice in the table', "$FINE\nT a1 running", qr/driver.history:\d+: a run must have an id, once/ ],
	[ 'an unknown call', "1 10-20 end_run A => committed", qr/client-1.history:1: unknown call "end_run"/ ],
	[ 'an unknown end', "1 10-20 begin_run A => perhaps began a1", qr/client-1.history:2: unknown end "perhaps"/ ],
	[ 'a committed error', "1 10-20 begin_run A => committed RN409", qr/client-1.history:2: an error cannot be committed/ ],
	[ 'an unknown turn status', "1 10-20 finalize_run - a1 failed => committed", qr/client-1.history:1: unknown turn/ ],
	[ 'no run', "1 10-20 heartbeat => committed continue", qr/client-1.history:1: heartbeat of which run/ ],
	[ 'no chat', "1 10-20 begin_run => committed began a1", qr/client-1.history:1: begin_run of which chat/ ],
	[ 'no given id', "1 10-20 begin_run A - given => committed began a1", qr/client-1.history:1: which run id was given/ ],
	[ 'time runs backwards', "1 20-10 begin_run A => committed began a1", qr/client-1.history:2: time runs backwards/ ],
	[ 'two calls at once', "1 10- begin_run A\n1 30-40 begin_run A", qr/client-1.history:2: the last call has not been/ ])
{
	my ($what, $text, $pattern) = @$case;
	unusable($what, write_history($text), $pattern);
}
unusable('nothing at all', File::Temp->newdir, qr/could not open driver\.history/);
for my $case (
	[ 'a line of another kind', 'client-1', "X\t50\t1\n", qr/client-1.history:3: this is no line of a history/ ],
	[ 'an empty line', 'driver', "\n", qr/driver.history:\d+: this is no line of a history/ ],
	[ 'a short line', 'client-1', "C\t50\t2\n", qr/client-1.history:3: this is no line of a history/ ],
	[ 'no time', 'driver', "F\tsoon\tend\n", qr/driver.history:\d+: "soon" is no time/ ],
	[ 'a call is missing', 'client-1', line(qw(C 50 3 attach_runner - - web)), qr/client-1.history:3: the serial/ ],
	[ 'an answer to nothing', 'client-1', line(qw(R 50 1 committed 0 - -)), qr/client-1.history:3: this answers no/ ])
{
	my ($what, $file, $text, $pattern) = @$case;
	my $directory = write_history($FINE);
	append("$directory/$file.history", $text);
	unusable($what, $directory, $pattern);
}

# Whoever is killed while he writes leaves the rest of a line.
my $torn = write_history($FINE);
append("$torn/client-1.history", "C\t50\t2\tget_");
append("$torn/driver.history", "T\t20");
is((judge($torn))[0], 0, 'torn lines are no lines');
done_testing();
