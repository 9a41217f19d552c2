# make                build the extension
# make install        install it (PG_CONFIG=/path/to/pg_config selects the server)
# make installcheck   SQL and isolation tests against a running server that has it installed
# make demo           show it at work on a private server
# make check          every test, on private servers; installs nothing into the system but packages
# make bench          measure it, on a private server; BENCH=quick takes minutes
# make chaos          break it for a quarter of an hour, and judge what everybody was told
# make valgrind       SQL tests on a server in valgrind; takes minutes
# make lint           static analysis and the rules of the source layout
# make model          check the models of the protocols, with spin
# make packages       build, install and test the packages, in a Debian made for it; needs root and debootstrap
# make dist           the archive for PGXN, of what is committed

SCRIPT_GOALS = check demo lint model bench chaos valgrind packages
ALONE_GOALS  = $(SCRIPT_GOALS) dist META.json
PG_CONFIG   ?= pg_config
EXTENSION    = ai_chat_run
# The control file is the only place where the version is written: that of the SQL, and that of the release.
EXTVERSION  := $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" $(EXTENSION).control)
RELEASE     := $(EXTVERSION).$(shell sed -n "s/^\# patch = //p" $(EXTENSION).control)
SQL_PARTS    = sql/parts/table.sql sql/parts/functions.sql sql/parts/views.sql \
               sql/parts/privileges.sql
DATA_built   = sql/$(EXTENSION)--$(EXTVERSION).sql

ifneq (,$(filter $(ALONE_GOALS),$(MAKECMDGOALS)))

# These goals work before any PostgreSQL is installed, and PGXS has a check target of its own that only
# complains. So PGXS is not read for them; other goals of the same command get a make of their own.
.NOTPARALLEL:
.PHONY: $(filter-out META.json,$(MAKECMDGOALS))
$(filter $(SCRIPT_GOALS),$(MAKECMDGOALS)):
	@bash test/$@.sh
$(filter-out $(ALONE_GOALS),$(MAKECMDGOALS)):
	@$(MAKE) $@

else

MODULE_big   = $(EXTENSION)
ROOMS        = module settings shared_state databases visits commit_news run_state run_id arguments \
               live_runs live_calls live_walks wakeup runners runner_attachment runner_reaping claims prepared watched_commands \
               run_sql planning run_table run_row deferred_row runner_row run_batch sweep_batch boot_batch tracking attempt deferral \
               begin_run finalize_run run_calls request_stop get_run is_locally_active procedure await_run \
               supersede_run attach_runner trigger_columns run_triggers delete_runs_of_chat sweep_runs \
               grant_app_access observe worker_unit worker worker_tasks launcher
OBJS         = $(ROOMS:%=src/%.o)
DATA         = $(wildcard sql/$(EXTENSION)--*--*.sql)

REGRESS        = $(patsubst test/sql/%.sql,%,$(sort $(wildcard test/sql/t_*.sql)))
REGRESS_OPTS   = --inputdir=test --load-extension=$(EXTENSION)
ISOLATION      = $(patsubst test/specs/%.spec,%,$(sort $(wildcard test/specs/race_*.spec)))
ISOLATION_OPTS = --inputdir=test --outputdir=. --load-extension=$(EXTENSION)
EXTRA_CLEAN    = .built-for META.json

PGXS := $(shell $(PG_CONFIG) --pgxs)
ifeq (,$(wildcard $(PGXS)))
$(error no PGXS behind "$(PG_CONFIG)": install the server development package, or set PG_CONFIG)
endif

# The server's headers count as system headers, so that warnings are about our own code.
PG_CPPFLAGS = -isystem $(shell $(PG_CONFIG) --includedir-server)
PG_CFLAGS   = -Wall -Wextra -Wno-unused-parameter

# Bitcode for JIT inlining is optional; go without where the clang the server was built with is not installed.
CLANG_OF_SERVER := $(shell sed -n 's/^CLANG *= *//p' $(dir $(PGXS))../Makefile.global)
ifeq (,$(shell command -v $(firstword $(CLANG_OF_SERVER) no-clang) 2>/dev/null))
override with_llvm := no
endif

include $(PGXS)

# PGXS follows neither headers nor a change of server; both must rebuild every object.
# .built-for names the server the objects are for, and is rewritten only when that changes.
BUILT_FOR := $(shell $(PG_CONFIG) --version --configure | cksum)
$(shell echo '$(BUILT_FOR)' | cmp -s - .built-for || echo '$(BUILT_FOR)' > .built-for)
$(OBJS) $(OBJS:.o=.bc): $(wildcard src/*.h) Makefile .built-for

endif

$(DATA_built): $(SQL_PARTS) $(EXTENSION).control
	cat $(SQL_PARTS) > $@

META.json: META.json.in $(EXTENSION).control
	sed -e 's/@RELEASE@/$(RELEASE)/g' -e 's/@EXTVERSION@/$(EXTVERSION)/g' $< > $@

# What git has, and the two files that are made; PGXN wants META.json, and the file that it names, to be in it.
dist: META.json $(DATA_built)
	@git diff --quiet HEAD -- || { echo 'dist: there are changes that are not committed'; exit 1; }
	git archive --format=zip --output=$(EXTENSION)-$(RELEASE).zip \
		--prefix=$(EXTENSION)-$(RELEASE)/sql/ --add-file=$(DATA_built) \
		--prefix=$(EXTENSION)-$(RELEASE)/ --add-file=META.json HEAD
