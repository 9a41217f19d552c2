# The judge of chaos runs: it lets pass what is right, or just about acceptable, and finds each breach of each rule, and
# no other rule broken then. Needs no server; each history is written by hand, as short as can be.
#
# Here: the rules for the table, and for how runs end, 1 to 6.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use JudgedHistory;
use Test::More;

# ---- a history in which everything happens that may ----

my $out = fine('everything', <<~HISTORY);
	1 10-20 begin_run A => committed began a1
	1 21-22 record_step - a1 1 => committed continue
	1 23-24 heartbeat - a1 => committed continue
	1 25-26 get_run - a1 => committed running a1
	1 27-28 get_active_for_chat A => committed running a1
	2 21-22 begin_run A => rolled_back RN409 a1
	2 23-24 try_begin_run A => committed busy a1
	2 25-90 await_run - a1 => committed succeeded
	3 30-31 request_stop - a1 => committed true
	3 32-33 await_stop - a1 => committed stop
	3 34-35 await_stops - - web => committed {a1}
	3 36-37 request_stop_for_chat A => committed a1 a1
	1 40-41 record_step - a1 2 => committed stop
	1 42-80 finalize_run - a1 completed => committed finalized
	3 85-86 finalize_run - a1 aborted => committed already_finalized
	3 87-88 heartbeat - a1 => committed finalized
	3 89-90 request_stop - a1 => committed false
	3 91-92 request_stop_for_chat A => committed null
	3 93-94 get_active_for_chat A => committed none
	1 100-110 try_begin_run B b1 given => committed began b1
	1 111-112 try_begin_run B b1 given => committed resumed b1
	1 113-114 begin_run B b1 given => committed began b1
	F 115 lock_rows one
	1 116-130 finalize_run - b1 error => committed deferred - failed
	1 140-150 begin_run B => committed began b2
	4 150-160 attach_runner - - web => committed 0
	2 151-170 supersede_run B b2 => committed superseded b3
	1 152-165 finalize_run - b2 aborted => committed finalized
	2 175-180 supersede_run B b1 => committed mismatch b3
	2 185-190 supersede_run B b3 => committed timeout
	2 191-192 await_run - b3 => committed null
	2 193-194 await_stops - - web => committed null
	2 195-196 await_stop - c9 => committed not_found
	F 197 cancel_backend
	2 198-199 begin_run C => rolled_back 57014
	F 200 terminate_backend
	2 201-202 begin_run C => unknown lost
	2 203-204 begin_run C => rolled_back began c2
	2 205-206 begin_run D d1 given => rolled_back began d1
	2 207-210 begin_run D d1 given => committed began d1
	F 211 lock_table
	F 212 full_disk
	F 213 kill_client 5
	5 212- begin_run E
	F 220 kill_backend
	1 219-230 begin_run F => unknown lost
	4 219-231 finalize_run - d1 completed => unknown lost
	U 240 1
	6 235-238 begin_run F => committed began f2
	S 241 1 a1 succeeded
	S 241 1 b1 failed
	S 241 1 b2 aborted
	S 241 1 b3 aborted $BOOT
	S 241 1 c1 aborted $BOOT
	S 241 1 d1 succeeded
	S 241 1 f1 aborted $BOOT
	S 241 1 f2 running
	6 250-260 supersede_run F f2 force => committed superseded f3
	6 261-262 finalize_run - f9 completed => committed not_found
	6 263-264 get_run - f9 => committed none
	F 270 stop_fast
	U 280 2
	S 281 2 a1 succeeded
	S 281 2 b1 failed
	S 281 2 b2 aborted
	S 281 2 b3 aborted $BOOT
	S 281 2 c1 aborted $BOOT
	S 281 2 d1 succeeded
	S 281 2 f1 aborted $BOOT
	S 281 2 f2 aborted Run superseded by another one.
	S 281 2 f3 aborted $BOOT
	= a1 succeeded
	= b1 failed
	= b2 aborted
	= b3 aborted $BOOT
	= c1 aborted $BOOT
	= d1 succeeded
	= f1 aborted $BOOT
	= f2 aborted Run superseded by another one.
	= f3 aborted $BOOT
	HISTORY
is(join(' ', $out =~ /^rule (\d+) .*: [1-9]\d* checked/gm), join(' ', 1 .. 12), 'and each rule is put to the test');
like($out, qr/^calls: finalize_run: 1 already_finalized, 1 deferred, 2 finalized, 1 lost, 1 not_found$/m,
	'calls are counted by outcome');
like($out, qr/^calls: begin_run: 1 57014, 1 RN409, \d+ began, 2 began rolled back, 2 lost, 1 without an answer$/m,
	'also those that came to nothing');
like($out, qr/^calls: await_stops: 1 an answer, 1 null$/m, 'but lists, ids and numbers are just answers');
like($out, qr/^calls: request_stop_for_chat: 1 an answer, 1 null$/m, 'that of a chat');
like($out, qr/^calls: attach_runner: 1 an answer$/m, 'and how many runs were aborted');
like($out, qr/^clients: 6\nfaults: 1 cancel_backend, 1 full_disk, 1 kill_backend, 1 kill_client, 1 lock_rows, /m,
	'clients and faults are counted');
like($out, qr/^lives of the server that ended: 2$/m, 'and lives');
like($out, qr/^runs: 6 aborted, 1 failed, 2 succeeded; 2 of them begun by a call whose answer was lost$/m, 'and runs');

# ---- rule 1: one active run a chat ----

breaks(1, 'two at one moment of the audit', <<~HISTORY, qr/had more than one active run/);
	1 10-20 begin_run A => committed began a1
	2 15-40 begin_run A => committed began a2
	1 50-60 finalize_run - a1 completed => committed finalized
	T a1 succeeded
	T a2 running
	A 100 1 a1 - running
	A 101 2 a2 - running
	A 102 3 a1 running succeeded
	HISTORY
fine('one ends and the next begins in one moment', <<~HISTORY);
	1 10-20 begin_run A => committed began a1
	2 30-40 supersede_run A a1 force => committed superseded a2
	T a1 aborted
	T a2 running
	A 100 1 a1 - running
	A 101 2 a1 running aborted
	A 101 3 a2 - running
	HISTORY
breaks(1, 'the audit is put in order of commit, not of the lines', <<~HISTORY, qr/had more than one active run/);
	1 10-20 begin_run A => committed began a1
	2 15-40 begin_run A => committed began a2
	1 50-60 finalize_run - a1 completed => committed finalized
	T a1 succeeded
	T a2 running
	A 100 1 a1 - running
	A 102 2 a1 running succeeded
	A 101 3 a2 - running
	HISTORY
fine('changes of one transaction are put in their order', <<~HISTORY);
	1 10-20 begin_run A => committed began a1
	1 30-40 finalize_run - a1 completed => committed finalized
	T a1 succeeded
	A 101 2 a1 running succeeded
	A 101 1 a1 - running
	HISTORY
fine('of two transactions that commit at the same time, the order is not known', <<~HISTORY);
	1 10-20 begin_run A => committed began a1
	1 30-40 finalize_run - a1 completed => committed finalized
	2 35-50 begin_run A => committed began a2
	T a1 succeeded
	T a2 running
	A 100 1 a1 - running
	A 101 2 a2 - running
	A 101 3 a1 running succeeded
	HISTORY
breaks(1, 'two for an observer', <<~HISTORY, qr/2 active runs in one snapshot/);
	$BEGUN
	O 30 A 2
	$GOES_ON
	HISTORY
breaks(1, 'two in a snapshot after a start', <<~HISTORY, qr/more than one active run/);
	F 100 kill_backend
	1 110-120 begin_run A a1 given => unknown lost
	2 110-120 begin_run A a2 given => unknown lost
	U 200 1
	S 201 1 a1 running
	S 201 1 a2 running
	1 300-310 finalize_run - a1 completed => unknown lost
	= a1 succeeded
	= a2 running
	HISTORY
breaks(1, 'two in the end', <<~HISTORY, qr/has more than one active run/);
	1 10-20 begin_run A => committed began a1
	2 15-25 begin_run A => committed began a2
	= a1 running
	= a2 running
	HISTORY
breaks(1, 'two as clients have seen them', <<~HISTORY, qr/had two active runs/);
	1 10-20 begin_run A => committed began a1
	2 15-40 begin_run A => committed began a2
	1 100-110 get_run - a1 => committed running a1
	2 90-95 get_run - a2 => committed running a2
	1 120-130 finalize_run - a1 aborted => committed finalized
	= a1 aborted
	= a2 running
	HISTORY
fine('one when the other may have ended', <<~HISTORY);
	1 10-20 begin_run A => committed began a1
	1 30-40 get_run - a1 => committed running a1
	2 15-50 begin_run A => committed began a2
	3 25-60 finalize_run - a1 aborted => committed finalized
	2 90-95 get_run - a2 => committed running a2
	= a1 aborted
	= a2 running
	HISTORY

# ---- rule 2: terminal is final ----

breaks(2, 'one end after another in the audit', <<~HISTORY, qr/was succeeded and became failed/);
	$BEGUN
	F 25 terminate_backend
	1 30-40 finalize_run - a1 error => unknown lost
	T a1 failed
	A 100 1 a1 - running
	A 101 2 a1 running succeeded
	A 102 3 a1 succeeded failed
	HISTORY
breaks(2, 'reopened', <<~HISTORY, qr/was succeeded and became running/);
	$BEGUN
	T a1 running
	A 100 1 a1 - running
	A 101 2 a1 running succeeded
	A 102 3 a1 succeeded running
	HISTORY
breaks(2, 'a change that the audit does not know', <<~HISTORY, qr/was running, and the next change is one from pending/);
	$BEGUN
	1 30-40 finalize_run - a1 completed => committed finalized
	T a1 succeeded
	A 100 1 a1 - running
	A 101 2 a1 pending succeeded
	HISTORY
breaks(2, 'the table says otherwise than the audit', <<~HISTORY, qr/is succeeded, which the audit does not say/);
	$BEGUN
	1 30-40 finalize_run - a1 completed => committed finalized
	T a1 succeeded
	A 100 1 a1 - running
	HISTORY
breaks(2, 'the audit does not know the run', <<~HISTORY, qr/is running, which the audit does not say/);
	$BEGUN
	1 30-40 begin_run B => committed began b1
	T a1 running
	= b1 running
	HISTORY
breaks(2, 'seen as ended, then as running', <<~HISTORY, qr/had ended, and was active later/);
	$BEGUN
	F 21 terminate_backend
	1 22-35 finalize_run - a1 completed => unknown lost
	2 30-40 get_run - a1 => committed succeeded a1
	2 41-50 get_active_for_chat A => committed running a1
	= a1 succeeded
	HISTORY
fine('seen as ended and as running at one time', <<~HISTORY);
	$BEGUN
	F 21 terminate_backend
	1 22-35 finalize_run - a1 completed => unknown lost
	2 30-40 await_run - a1 => committed succeeded
	3 39-50 get_run - a1 => committed running a1
	= a1 succeeded
	HISTORY
breaks(2, 'seen with two ends', <<~HISTORY, qr/was seen with two ends/);
	$BEGUN
	F 21 terminate_backend
	1 22-35 finalize_run - a1 completed => unknown lost
	2 22-35 finalize_run - a1 error => unknown lost
	2 36-40 await_run - a1 => committed succeeded
	3 39-50 get_run - a1 => committed failed a1
	= a1 failed
	HISTORY
breaks(2, 'another end in a snapshot than in the table', <<~HISTORY, qr/is failed, but was seen with another end/);
	$BEGUN
	F 21 kill_postmaster
	1 22-35 finalize_run - a1 completed => unknown lost
	2 22-35 finalize_run - a1 error => unknown lost
	U 50 1
	S 51 1 a1 succeeded
	= a1 failed
	HISTORY
breaks(2, 'seen as ended, and active in the end', <<~HISTORY, qr/is running, but was seen as ended/);
	$BEGUN
	F 21 terminate_backend
	1 22-35 finalize_run - a1 completed => unknown lost
	2 36-40 await_run - a1 => committed succeeded
	$GOES_ON
	HISTORY
breaks(2, 'nobody seen while one was active', <<~HISTORY, qr/no run was seen while run/);
	$BEGUN
	2 30-40 get_active_for_chat A => committed none
	1 50-60 get_run - a1 => committed running a1
	$GOES_ON
	HISTORY
fine('nobody seen while one may not have been there yet', <<~HISTORY);
	$BEGUN
	2 19-40 get_active_for_chat A => committed none
	1 50-60 get_run - a1 => committed running a1
	$GOES_ON
	HISTORY

# ---- rule 3: one end, and it stands ----

breaks(3, 'another end than was told', <<~HISTORY, qr/is aborted, but a finalizer was told another end/);
	$BEGUN
	F 21 terminate_backend
	1 30-40 finalize_run - a1 completed => committed finalized
	2 30-40 finalize_run - a1 aborted => unknown lost
	= a1 aborted
	HISTORY
breaks(3, 'no end, though one was told', <<~HISTORY, qr/is running, but a finalizer was told another end/);
	$BEGUN
	1 30-40 finalize_run - a1 completed => committed finalized
	$GOES_ON
	HISTORY
fine('no end, if it was rolled back', <<~HISTORY);
	$BEGUN
	1 30-40 finalize_run - a1 completed => rolled_back finalized
	1 50-60 finalize_run - a1 completed => rolled_back already_finalized
	1 70-80 heartbeat - a1 => committed continue
	$GOES_ON
	HISTORY
breaks(3, 'two told', <<~HISTORY, qr/more than one finalizer/);
	$BEGUN
	1 30-60 finalize_run - a1 completed => committed finalized
	2 30-40 finalize_run - a1 completed => committed finalized
	= a1 succeeded
	HISTORY
breaks(3, 'another end in a later snapshot', <<~HISTORY, qr/is failed, but a finalizer was told another end/);
	$BEGUN
	1 30-40 finalize_run - a1 completed => committed finalized
	F 50 kill_launcher
	U 60 1
	S 61 1 a1 failed
	= a1 succeeded
	HISTORY
breaks(3, 'active in a later snapshot', <<~HISTORY, qr/had ended, and was active later/);
	F 15 kill_launcher
	$BEGUN
	1 30-40 finalize_run - a1 completed => committed finalized
	U 60 1
	S 61 1 a1 running
	= a1 succeeded
	HISTORY
breaks(3, 'told after the end', <<~HISTORY, qr/had ended, and was active later/);
	$BEGUN
	F 21 terminate_backend
	1 22-30 finalize_run - a1 completed => unknown lost
	2 30-40 get_run - a1 => committed succeeded a1
	2 50-60 finalize_run - a1 completed => committed finalized
	= a1 succeeded
	HISTORY
breaks(3, 'told the end of a run that was never begun', <<~HISTORY, qr/was seen, but is not in the table/);
	1 10-20 begin_run A => rolled_back began a1
	1 30-40 finalize_run - a1 completed => committed finalized
	$OTHER
	HISTORY
breaks(3, 'told that somebody had, and nobody has', <<~HISTORY, qr/is running, but was seen as ended/);
	$BEGUN
	1 30-40 finalize_run - a1 completed => committed already_finalized
	$GOES_ON
	HISTORY
breaks(3, 'told that somebody had, and seen running later', <<~HISTORY, qr/had ended, and was active later/);
	$BEGUN
	1 30-40 finalize_run - a1 completed => committed already_finalized
	2 25-60 finalize_run - a1 completed => committed finalized
	3 45-50 get_run - a1 => committed running a1
	= a1 succeeded
	HISTORY
breaks(3, 'an end that nobody had asked for', <<~HISTORY, qr/is failed, which nobody had asked for/);
	$BEGUN
	F 25 terminate_backend
	1 30-40 finalize_run - a1 completed => unknown lost
	= a1 failed
	HISTORY
breaks(3, 'an end of which the request was rolled back', <<~HISTORY, qr/is failed, which nobody had asked for/);
	$BEGUN
	1 30-40 finalize_run - a1 error => rolled_back finalized
	1 41-42 finalize_run - a1 error => rolled_back 57014
	1 43-44 finalize_run - a1 error => rolled_back deferred - failed
	= a1 failed
	HISTORY
breaks(3, 'an end that was asked for only later', <<~HISTORY, qr/is succeeded, which nobody had asked for/);
	$BEGUN
	1 30-40 get_run - a1 => committed succeeded a1
	F 41 terminate_backend
	1 45-50 finalize_run - a1 completed => unknown lost
	= a1 succeeded
	HISTORY
breaks(3, 'aborted by nobody', <<~HISTORY, qr/is aborted, which nobody had asked for/);
	$BEGUN
	2 25-30 supersede_run A a1 - => committed timeout
	2 35-40 supersede_run A a1 force => committed timeout
	= a1 aborted
	HISTORY
fine('aborted by force', <<~HISTORY);
	$BEGUN
	2 25-30 supersede_run A a1 force => rolled_back 57014
	= a1 aborted
	HISTORY
fine('aborted because its runner came again', <<~HISTORY);
	$BEGUN
	2 25-30 attach_runner - - web => committed 1
	= a1 aborted $RESTARTED
	HISTORY
breaks(3, 'aborted because its runner came again, which was rolled back', <<~HISTORY, qr/which nobody had asked for/);
	$BEGUN
	2 25-30 attach_runner - - web => rolled_back 1
	= a1 aborted $RESTARTED
	HISTORY
breaks(3, 'aborted for its silence', <<~HISTORY, qr/which nobody had asked for/);
	$BEGUN
	2 25-30 attach_runner - - web => committed 1
	= a1 aborted $SILENT
	HISTORY
breaks(3, 'deferred after the end', <<~HISTORY, qr/was deferred after it had ended/);
	$BEGUN
	1 30-40 finalize_run - a1 completed => committed finalized
	2 50-60 finalize_run - a1 completed => committed deferred - succeeded
	= a1 succeeded
	HISTORY
excused(3, 'deferred after the end, where the table is locked', <<~HISTORY);
	$BEGUN
	1 30-40 finalize_run - a1 completed => committed finalized
	F 45 lock_table
	2 50-60 finalize_run - a1 completed => committed deferred - succeeded
	= a1 succeeded
	HISTORY
excused(3, 'where the table is locked, of which a life before or later does not relieve', <<~HISTORY);
	F 2 stop_fast
	U 4 1
	$BEGUN
	1 30-40 finalize_run - a1 completed => committed finalized
	F 45 lock_table
	F 47 stop_fast
	2 50-60 finalize_run - a1 completed => committed deferred - succeeded
	U 70 2
	S 71 2 a1 succeeded
	= a1 succeeded
	HISTORY
breaks(3, 'deferred after the end, where the table was locked in a life before', <<~HISTORY, qr/after it had ended/);
	$BEGUN
	1 30-40 finalize_run - a1 completed => committed finalized
	F 45 lock_table
	F 46 stop_immediate
	U 48 1
	S 49 1 a1 succeeded
	2 50-60 finalize_run - a1 completed => committed deferred - succeeded
	= a1 succeeded
	HISTORY

# ---- rule 4: no run is lost, none is made up ----

breaks(4, 'begun, and not in the table', <<~HISTORY, qr/was begun, but is not in the table/);
	$BEGUN
	$OTHER
	HISTORY
breaks(4, 'resumed, and not in the table', <<~HISTORY, qr/was begun, but is not in the table/);
	F 5 terminate_backend
	1 10-20 try_begin_run A a1 given => unknown lost
	1 30-40 try_begin_run A a1 given => committed resumed a1
	$OTHER
	HISTORY
fine('not in the table, where nobody knows whether it was begun', <<~HISTORY);
	F 5 terminate_backend
	1 10-20 begin_run A => unknown lost
	1 30-40 begin_run A a2 given => unknown lost
	1 50-60 begin_run A => rolled_back began a3
	1 70-80 begin_run A => rolled_back 57P01
	$OTHER
	HISTORY
fine('in the table, where nobody knows whether it was begun', <<~HISTORY);
	F 5 terminate_backend
	1 10-20 begin_run A => unknown lost
	1 30-40 begin_run B b1 given => unknown lost
	1 50-60 begin_run C => rolled_back 57P01
	1 70-80 supersede_run D d1 => rolled_back 57014
	F 90 kill_client
	1 95- try_begin_run E
	= a1 running
	= b1 running
	= c1 running
	= d2 running
	= e1 running
	HISTORY
breaks(4, 'rolled back, and in the table', <<~HISTORY, qr/was rolled back, but it is in the table/);
	1 10-20 begin_run A => rolled_back began a1
	$GOES_ON
	HISTORY
fine('rolled back, and begun once more', <<~HISTORY);
	1 10-20 begin_run A a1 given => rolled_back began a1
	F 25 terminate_backend
	1 30-40 begin_run A a1 given => unknown lost
	$GOES_ON
	HISTORY
breaks(4, 'begun by nobody', <<~HISTORY, qr/was begun by nobody/);
	1 10-20 begin_run A => rolled_back 57014
	$GOES_ON
	HISTORY
for my $call ('supersede_run A a9 => committed mismatch', 'begin_run A => rolled_back RN409',
	'try_begin_run A => committed busy')
{
	breaks(4, "named, and begun by nobody: $call", <<~HISTORY, qr/was begun by nobody/);
		1 10-20 $call a1
		$GOES_ON
		HISTORY
}
breaks(4, 'one lost begin for two runs', <<~HISTORY, qr/was begun by nobody/);
	F 5 terminate_backend
	1 10-20 begin_run A => unknown lost
	1 30-40 supersede_run B b1 => unknown lost
	1 50-60 begin_run A a3 given => unknown lost
	2 60-70 attach_runner - - web => rolled_back 57P01
	2 80-90 await_run - a1 => committed aborted
	= a1 aborted
	= a2 running
	HISTORY
breaks(4, 'seen before its begin was sent', <<~HISTORY, qr/was begun by nobody/);
	F 5 terminate_backend
	2 10-20 get_active_for_chat A => committed running a1
	1 30-40 begin_run A => unknown lost
	$GOES_ON
	HISTORY
breaks(4, 'seen before its begin with that id was sent', <<~HISTORY, qr/was there before anybody began it/);
	2 10-20 get_run - a1 => committed running a1
	1 30-40 begin_run A a1 given => committed began a1
	$GOES_ON
	HISTORY
breaks(4, 'another id than was given', <<~HISTORY, qr/did not return the id of the run/);
	1 10-20 begin_run A a1 given => committed began a2
	= a2 running
	HISTORY
breaks(4, 'no id', <<~HISTORY, qr/did not return the id of the run/);
	1 10-20 begin_run A => committed began
	$OTHER
	HISTORY
breaks(4, 'resumed, and not there before', <<~HISTORY, qr/was resumed, but not begun before/);
	1 10-20 try_begin_run A a1 given => committed resumed a1
	$GOES_ON
	HISTORY
breaks(4, 'resumed without an id', <<~HISTORY, qr/was resumed, but no id was given/);
	$BEGUN
	1 30-40 try_begin_run A => committed resumed a1
	$GOES_ON
	HISTORY
breaks(4, 'begun twice', <<~HISTORY, qr/was begun more than once/);
	1 10-20 try_begin_run A a1 given => committed began a1
	2 15-25 try_begin_run A a1 given => committed began a1
	$GOES_ON
	HISTORY
breaks(4, 'in another chat', <<~HISTORY, qr/was begun in another chat/);
	$BEGUN
	= a1\@B running
	HISTORY
breaks(4, 'in another chat in a snapshot', <<~HISTORY, qr/was begun in another chat/);
	F 15 kill_worker
	$BEGUN
	U 30 1
	S 31 1 a1\@B running
	$GOES_ON
	HISTORY
breaks(4, 'busy instead of the run that was there', <<~HISTORY, qr/was there, and begin with its id did not return it/);
	1 10-20 begin_run A a1 given => committed began a1
	1 30-40 begin_run A a1 given => rolled_back RN409 a1
	$GOES_ON
	HISTORY
fine('busy where the run with that id may come only now', <<~HISTORY);
	1 10-20 begin_run A => committed began a2
	1 30-40 finalize_run - a2 aborted => committed finalized
	3 25-50 try_begin_run A a1 given => committed busy a2
	2 35-50 try_begin_run A a1 given => committed began a1
	= a2 aborted
	= a1 running
	HISTORY
breaks(4, 'not in a snapshot', <<~HISTORY, qr/was begun, but is not in the table in life 1/);
	$BEGUN
	F 30 stop_immediate
	U 40 1
	F 50 stop_immediate
	U 60 2
	S 61 2 a1 aborted $BOOT
	= a1 aborted $BOOT
	HISTORY
breaks(4, 'not in the last snapshot', <<~HISTORY, qr/was begun, but is not in the table in life 2/);
	$BEGUN
	F 30 stop_immediate
	U 40 1
	S 41 1 a1 aborted $BOOT
	F 50 stop_immediate
	U 60 2
	= a1 aborted $BOOT
	HISTORY
breaks(4, 'deleted', <<~HISTORY, qr/was deleted/);
	$BEGUN
	T a1 running
	A 100 1 a1 - running
	A 101 2 a1 running -
	A 102 3 a1 - running
	HISTORY
breaks(4, 'seen, and not in the table', <<~HISTORY, qr/was seen, but is not in the table/);
	F 5 terminate_backend
	1 10-20 begin_run A a1 given => unknown lost
	1 30-40 get_run - a1 => committed running a1
	$OTHER
	HISTORY
breaks(4, 'another run than was asked for', <<~HISTORY, qr/^not run .* was asked for/);
	$BEGUN
	1 30-40 get_run - b1 => committed running a1
	$GOES_ON
	HISTORY
breaks(4, 'a run of another chat than was asked for', <<~HISTORY, qr/^not run .* was asked for/);
	$BEGUN
	1 30-40 get_active_for_chat B => committed running a1
	$GOES_ON
	HISTORY
breaks(4, 'in the audit, and not in the table', <<~HISTORY, qr/is in the audit, but not in the table/);
	F 5 terminate_backend
	1 10-20 begin_run A a1 given => unknown lost
	$OTHER
	A 90 9 a1 - running
	HISTORY

# ---- rule 5: server start ----

breaks(5, 'active after the boot sweep', <<~HISTORY, qr/was begun before the server went down, and is still active/);
	$BEGUN
	F 30 kill_backend
	U 40 1
	S 41 1 a1 running
	$GOES_ON
	HISTORY
breaks(5, 'active after the boot sweep, begun by a call whose answer was lost', <<~HISTORY, qr/nobody can have begun it/);
	F 5 terminate_backend
	1 10-20 begin_run A => unknown lost
	F 30 kill_backend
	U 40 1
	S 41 1 a1 running
	$GOES_ON
	HISTORY
fine('active after the boot sweep, begun since', <<~HISTORY);
	F 30 kill_backend
	1 10-31 begin_run A => committed began a1
	1 32-35 begin_run B => committed began b1
	2 28-33 begin_run C => unknown lost
	F 34 kill_client
	3 25- begin_run D
	U 40 1
	S 41 1 a1 running
	S 41 1 b1 running
	S 41 1 c1 running
	S 41 1 d1 running
	= a1 running
	= b1 running
	= c1 running
	= d1 running
	HISTORY
fine('active after the boot sweep, where the second fault may have met nothing', <<~HISTORY);
	F 30 kill_backend
	1 32-35 begin_run A => committed began a1
	F 37 kill_worker
	U 40 1
	S 41 1 a1 running
	$GOES_ON
	HISTORY
breaks(5, 'interrupted by a restart, which was before', <<~HISTORY, qr/but there was none meanwhile/);
	F 30 kill_backend
	U 40 1
	1 50-60 begin_run A => committed began a1
	= a1 aborted $BOOT
	HISTORY
breaks(5, 'interrupted by a restart, which was later', <<~HISTORY, qr/but there was none meanwhile/);
	$BEGUN
	2 20-30 await_run - a1 => committed aborted
	F 40 kill_backend
	U 50 1
	S 51 1 a1 aborted $BOOT
	= a1 aborted $BOOT
	HISTORY
breaks(5, 'interrupted by a restart, and there was none', <<~HISTORY, qr/but there was none meanwhile/);
	$BEGUN
	F 30 terminate_backend
	1 35-40 finalize_run - a1 aborted => unknown lost
	= a1 aborted $BOOT
	HISTORY

# ---- rule 6: what was deferred is what comes ----

fine('deferred, and come', <<~HISTORY);
	$DEFERRED
	2 50-60 finalize_run - a1 completed => committed already_finalized
	= a1 failed
	HISTORY
fine('deferred before by another', <<~HISTORY);
	$DEFERRED
	2 50-60 finalize_run - a1 completed => committed deferred - failed
	= a1 failed
	HISTORY
fine('deferred, and rolled back', <<~HISTORY);
	$BEGUN
	1 30-40 finalize_run - a1 error => rolled_back deferred - failed
	2 50-60 finalize_run - a1 completed => committed finalized
	= a1 succeeded
	HISTORY
breaks(6, 'overwritten by a later finalizer', <<~HISTORY, qr/is succeeded, but failed was deferred/);
	$DEFERRED
	2 45-60 finalize_run - a1 completed => committed finalized
	= a1 succeeded
	HISTORY
excused(6, 'a finalizer was writing', <<~HISTORY);
	$DEFERRED
	2 39-60 finalize_run - a1 completed => committed finalized
	= a1 succeeded
	HISTORY
excused(6, 'a finalizer has written meanwhile', <<~HISTORY);
	$DEFERRED
	2 25-31 finalize_run - a1 completed => committed finalized
	= a1 succeeded
	HISTORY
breaks(6, 'another finalizer was at it, but did not write', <<~HISTORY, qr/is succeeded, but failed was deferred/);
	$DEFERRED
	2 35-60 finalize_run - a1 completed => committed already_finalized
	3 41-58 finalize_run - a1 completed => committed finalized
	= a1 succeeded
	HISTORY
breaks(6, 'another finalizer was at it, but for another end', <<~HISTORY, qr/is succeeded, but failed was deferred/);
	$DEFERRED
	F 34 terminate_backend
	2 35-60 finalize_run - a1 aborted => unknown lost
	2 70-80 finalize_run - a1 completed => committed finalized
	= a1 succeeded
	HISTORY
excused(6, 'a finalizer may have been writing, whose answer was lost', <<~HISTORY);
	F 5 terminate_backend
	$DEFERRED
	2 25-31 finalize_run - a1 completed => unknown lost
	= a1 succeeded
	HISTORY
breaks(6, 'the answer was lost before', <<~HISTORY, qr/is succeeded, but failed was deferred/);
	F 5 terminate_backend
	$DEFERRED
	2 21-29 finalize_run - a1 completed => unknown lost
	= a1 succeeded
	HISTORY
excused(6, 'a killed client has sent another end before', <<~HISTORY);
	$DEFERRED
	F 24 kill_client
	2 21- finalize_run - a1 completed
	= a1 succeeded
	HISTORY
breaks(6, 'a killed client has sent another end later', <<~HISTORY, qr/is succeeded, but failed was deferred/);
	$DEFERRED
	F 44 kill_client
	2 41- finalize_run - a1 completed
	= a1 succeeded
	HISTORY
breaks(6, 'each of two is told that his end is deferred', <<~HISTORY, qr/is failed, but succeeded was deferred/);
	$DEFERRED
	2 35-60 finalize_run - a1 completed => committed deferred - succeeded
	= a1 failed
	HISTORY
excused(6, 'force was at it', <<~HISTORY);
	$DEFERRED
	2 25-60 supersede_run A a1 force => committed superseded a2
	= a1 aborted
	= a2 running
	HISTORY
breaks(6, 'force came later', <<~HISTORY, qr/is aborted, but failed was deferred/);
	$DEFERRED
	2 45-60 supersede_run A a1 force => committed superseded a2
	= a1 aborted
	= a2 running
	HISTORY
breaks(6, 'somebody superseded without force', <<~HISTORY, qr/is aborted, but failed was deferred/);
	$DEFERRED
	2 25-60 supersede_run A a1 => committed superseded a2
	F 60 kill_backend
	3 41-62 finalize_run - a1 aborted => unknown lost
	U 70 1
	S 71 1 a1 aborted
	S 71 1 a2 aborted $BOOT
	= a1 aborted
	= a2 aborted $BOOT
	HISTORY
excused(6, 'force was at it when it was cancelled', <<~HISTORY);
	$DEFERRED
	2 25-31 supersede_run A a1 force => rolled_back 57014
	= a1 aborted
	HISTORY
breaks(6, 'force was cancelled before', <<~HISTORY, qr/is aborted, but failed was deferred/);
	$DEFERRED
	2 25-29 supersede_run A a1 force => rolled_back 57014
	= a1 aborted
	HISTORY
breaks(6, 'the boot sweep overrules what was deferred in the life before', <<~HISTORY, qr/but failed was deferred/);
	$DEFERRED
	F 50 kill_postmaster
	U 60 1
	S 61 1 a1 aborted $BOOT
	= a1 aborted $BOOT
	HISTORY
excused(6, 'the boot sweep may have been at it', <<~HISTORY);
	$BEGUN
	F 25 kill_postmaster
	1 30-40 finalize_run - a1 error => committed deferred - failed
	U 60 1
	S 61 1 a1 aborted $BOOT
	= a1 aborted $BOOT
	HISTORY
breaks(6, 'the boot sweep was at it, but did not write that', <<~HISTORY, qr/is aborted, but failed was deferred/);
	$BEGUN
	F 25 kill_postmaster
	1 30-40 finalize_run - a1 error => committed deferred - failed
	U 60 1
	S 61 1 a1 aborted something else
	= a1 aborted something else
	HISTORY
breaks(6, 'the boot sweep was done', <<~HISTORY, qr/is aborted, but failed was deferred/);
	1 10-20 begin_run A => committed began a1
	F 15 kill_postmaster
	U 25 1
	1 30-40 finalize_run - a1 error => committed deferred - failed
	S 26 1 a1 running
	= a1 aborted $BOOT
	HISTORY
excused(6, 'a runner that came again may have been at it', <<~HISTORY);
	$DEFERRED
	2 35-50 attach_runner - - web => committed 1
	= a1 aborted $RESTARTED
	HISTORY
breaks(6, 'a runner came again later', <<~HISTORY, qr/is aborted, but failed was deferred/);
	$DEFERRED
	2 45-50 attach_runner - - web => committed 1
	= a1 aborted $RESTARTED
	HISTORY
excused(6, 'the departure of a runner may have been noticed just then', <<~HISTORY);
	2 5-8 attach_runner - - web => committed 0
	$DEFERRED
	= a1 aborted $DEPARTED
	HISTORY
breaks(6, 'no runner had attached', <<~HISTORY, qr/is aborted, but failed was deferred/);
	$DEFERRED
	2 45-48 attach_runner - - web => committed 0
	= a1 aborted $DEPARTED
	HISTORY
excused(6, 'the end was there, behind a locked table', <<~HISTORY);
	$BEGUN
	2 21-25 finalize_run - a1 completed => committed finalized
	F 28 lock_table
	1 30-40 finalize_run - a1 error => committed deferred - failed
	= a1 succeeded
	HISTORY
breaks(6, 'the table was locked, but only then came the end', <<~HISTORY, qr/is succeeded, but failed was deferred/);
	F 28 lock_table
	$DEFERRED
	2 45-50 finalize_run - a1 completed => committed finalized
	= a1 succeeded
	HISTORY
excused(6, 'a run that was never begun, behind a locked table', <<~HISTORY);
	F 28 lock_table
	1 30-40 finalize_run - a1 error => committed deferred - failed
	$OTHER
	HISTORY
breaks(6, 'a run that was never begun', <<~HISTORY, qr/was deferred, but there is no such run/);
	1 30-40 finalize_run - a1 error => committed deferred - failed
	$OTHER
	HISTORY
breaks(6, 'no warning', <<~HISTORY, qr/was deferred without the warning/);
	$BEGUN
	1 30-40 finalize_run - a1 error => committed deferred
	= a1 failed
	HISTORY
breaks(6, 'never applied', <<~HISTORY, qr/is running, but failed was deferred/);
	$DEFERRED
	$GOES_ON
	HISTORY
breaks(6, 'left in the end', <<~HISTORY, qr/is still deferred/);
	$DEFERRED
	= a1 failed
	D a1 failed
	HISTORY
done_testing();
