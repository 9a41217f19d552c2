# What the catalogs say of an extension, in a form that can be compared between databases: every object that belongs to
# it or hangs on one that does, with all that its rows in the catalogs say, and with names where they have oids.
package ExtensionCatalog;

use strict;
use warnings;
use Exporter 'import';

our @EXPORT = qw(extension_catalog catalog_difference);

# How the server has stored a thing, or what it remembers of its past, is no part of what the thing is. Numbers of
# columns count those that were dropped, too. What the server keeps as a tree is shown as SQL below.
my $NOT_COMPARED = join ', ', map { "'$_'" } qw(oid
  pg_class.relfilenode pg_class.reltablespace pg_class.relpages pg_class.reltuples pg_class.relallvisible
  pg_class.relallfrozen pg_class.relfrozenxid pg_class.relminmxid pg_class.reltoastrelid pg_class.relnatts
  pg_class.relhasindex pg_class.relhasrules pg_class.relhastriggers pg_class.relchecks
  pg_attribute.attnum pg_attribute.attrelid pg_attribute.attcacheoff pg_attribute.atthasmissing
  pg_attribute.attmissingval
  pg_index.indexrelid pg_index.indkey pg_index.indcheckxmin
  pg_constraint.conkey pg_constraint.confkey pg_trigger.tgattr pg_attrdef.adnum
  pg_extension.extconfig pg_extension.extcondition);

my $FUNCTION = <<~SQL;
	-- The rows of a catalog, with names: a query whose only parameter is the oids of the objects.
	CREATE FUNCTION pg_temp.query_of(catalog regclass, key name) RETURNS text LANGUAGE sql AS \$\$
		SELECT format('SELECT r.%I AS objid, jsonb_build_object(%s) AS row FROM %s r WHERE r.%I = ANY (\$1)', key,
			string_agg(format('%L, %s', a.attname, CASE
				WHEN a.atttypid = 'aclitem[]'::regtype
					THEN format('(SELECT array_agg(i::text ORDER BY i::text) FROM unnest(r.%I) i)', a.attname)
				-- Late releases of PostgreSQL keep a number of their own among them.
				WHEN a.attname = 'attoptions'
					THEN '(SELECT array_agg(o ORDER BY o) FROM unnest(r.attoptions) o WHERE o NOT LIKE ''pg\_attver=%'')'
				WHEN f.is_array
					THEN format('(SELECT array_agg(pg_temp.name_of(%L, o) ORDER BY n)
						FROM unnest(r.%I::oid[]) WITH ORDINALITY u(o, n))', f.pktable, a.attname)
				WHEN f.pktable IS NOT NULL THEN format('pg_temp.name_of(%L, r.%I::oid)', f.pktable, a.attname)
				ELSE format('r.%I', a.attname) END), ', ' ORDER BY a.attname), catalog, key)
		FROM pg_attribute a
		LEFT JOIN pg_get_catalog_foreign_keys() f ON f.fktable = catalog AND f.fkcols = ARRAY[a.attname::text]
			AND f.pkcols = '{oid}'
		WHERE a.attrelid = catalog AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid <> 'pg_node_tree'::regtype
			AND a.attname NOT IN ($NOT_COMPARED) AND catalog::text || '.' || a.attname NOT IN ($NOT_COMPARED)
	\$\$;

	CREATE FUNCTION pg_temp.name_of(catalog regclass, object oid, sub integer DEFAULT 0) RETURNS text LANGUAGE sql AS
		'SELECT CASE WHEN object <> 0 THEN (SELECT type || '' '' || identity FROM pg_identify_object(catalog, object, sub)) END';

	CREATE FUNCTION pg_temp.extension_catalog(extension name) RETURNS SETOF text LANGUAGE plpgsql AS \$\$
	DECLARE
		class regclass;
		ids oid[];
	BEGIN
		-- Members, the schema, and whatever goes when one of them goes. How a toast table is made is the server's affair.
		CREATE TEMP TABLE object ON COMMIT DROP AS
			WITH RECURSIVE object(classid, objid) AS (
				SELECT 'pg_extension'::regclass::oid, oid FROM pg_extension WHERE extname = extension
				UNION
				SELECT 'pg_namespace'::regclass, extnamespace FROM pg_extension WHERE extname = extension
				UNION
				SELECT d.classid, d.objid FROM object o
				JOIN pg_depend d ON d.refclassid = o.classid AND d.refobjid = o.objid AND d.deptype IN ('e', 'i', 'a')
				WHERE o.classid <> 'pg_namespace'::regclass
			)
			SELECT classid, objid, pg_temp.name_of(classid, objid) AS name FROM object
			WHERE NOT EXISTS (SELECT FROM pg_class c WHERE object.classid = 'pg_class'::regclass
				AND c.oid = objid AND c.relnamespace = 'pg_toast'::regnamespace);

		FOR class, ids IN SELECT classid, array_agg(objid) FROM object GROUP BY classid LOOP
			RETURN QUERY EXECUTE format('SELECT o.name || '': '' || k.key || '' = '' || k.value
				FROM (%s) q JOIN object o ON o.classid = %s AND o.objid = q.objid, jsonb_each_text(q.row) k
				WHERE k.value IS NOT NULL', pg_temp.query_of(class, 'oid'), class::oid) USING ids;
		END LOOP;

		-- Parts of relations that are no objects of their own. Their place is that among the columns there are.
		SELECT array_agg(objid) INTO ids FROM object WHERE classid = 'pg_class'::regclass;
		RETURN QUERY EXECUTE format('SELECT o.name || ''.'' || (q.row ->> ''attname'') || '': '' || k.key || '' = '' || k.value
			FROM (%s) q JOIN object o ON o.classid = ''pg_class''::regclass AND o.objid = q.objid, jsonb_each_text(q.row) k
			WHERE (q.row ->> ''attisdropped'') = ''false'' AND k.value IS NOT NULL',
			pg_temp.query_of('pg_attribute', 'attrelid')) USING ids;
		RETURN QUERY SELECT o.name || ': columns = ' || string_agg(a.attname, ', ' ORDER BY a.attnum)
			FROM pg_attribute a JOIN object o ON o.classid = 'pg_class'::regclass AND o.objid = a.attrelid
			WHERE a.attnum > 0 AND NOT a.attisdropped GROUP BY o.name;
		RETURN QUERY EXECUTE format('SELECT o.name || '': '' || k.key || '' = '' || k.value
			FROM (%s) q JOIN object o ON o.classid = ''pg_class''::regclass AND o.objid = q.objid, jsonb_each_text(q.row) k
			WHERE k.value IS NOT NULL', pg_temp.query_of('pg_index', 'indexrelid')) USING ids;

		-- What the catalogs keep as trees.
		RETURN QUERY SELECT name || ': ' || definition FROM object, LATERAL (SELECT CASE classid::regclass::text
			WHEN 'pg_constraint' THEN pg_get_constraintdef(objid)
			WHEN 'pg_trigger' THEN pg_get_triggerdef(objid)
			WHEN 'pg_rewrite' THEN pg_get_ruledef(objid)
			WHEN 'pg_attrdef' THEN (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE oid = objid)
			WHEN 'pg_proc' THEN (SELECT pg_get_functiondef(oid) FROM pg_proc WHERE oid = objid AND prokind <> 'a')
			WHEN 'pg_class' THEN (SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indexrelid = objid)
			END AS definition) d WHERE definition IS NOT NULL;

		-- What is said of objects elsewhere.
		RETURN QUERY SELECT pg_temp.name_of(d.classoid, d.objoid, d.objsubid) || ': comment = ' || d.description
			FROM pg_description d JOIN object ON (classid, objid) = (d.classoid, d.objoid);
		RETURN QUERY SELECT pg_temp.name_of(l.classoid, l.objoid, l.objsubid) || ': label = ' || l.label
			FROM pg_seclabel l JOIN object ON (classid, objid) = (l.classoid, l.objoid);
		RETURN QUERY SELECT pg_temp.name_of(p.classoid, p.objoid, p.objsubid) || ': initial rights = '
				|| (SELECT string_agg(i::text, ',' ORDER BY i::text) FROM unnest(p.initprivs) i)
			FROM pg_init_privs p JOIN object ON (classid, objid) = (p.classoid, p.objoid);
		RETURN QUERY SELECT pg_temp.name_of(d.classid, d.objid, d.objsubid) || ': depends (' || d.deptype::text || ') on '
				|| pg_temp.name_of(d.refclassid, d.refobjid, d.refobjsubid)
			FROM pg_depend d JOIN object o ON (o.classid, o.objid) = (d.classid, d.objid);
		RETURN QUERY SELECT 'a dump takes rows of ' || c.relation::regclass || ' ' || c.condition
			FROM pg_extension, unnest(extconfig, extcondition) c(relation, condition) WHERE extname = extension;
	END \$\$;
	SQL

# extension_catalog(NODE, DATABASE, SQL): a line for each thing that is to be said, sorted. With SQL, what would be said
# after that, which is rolled back.
sub extension_catalog
{
	my ($node, $db, $sql) = @_;
	my $out = $node->safe_psql($db, <<~SQL);
		BEGIN;
		@{[ $sql // '' ]};
		$FUNCTION
		SET LOCAL search_path = pg_catalog;
		SELECT replace(line, E'\\n', ' ') FROM pg_temp.extension_catalog('ai_chat_run') line;
		ROLLBACK;
		SQL
	return sort split /\n/, $out;
}

# catalog_difference(OLD, NEW): what only one of these lists has, "- LINE" and "+ LINE"; empty where they are equal.
sub catalog_difference
{
	my ($old, $new) = @_;
	my (%count, @difference);
	$count{$_}-- for @$old;
	$count{$_}++ for @$new;
	push @difference, map { ($count{$_} < 0 ? '- ' : '+ ') . $_ } grep { $count{$_} } sort keys %count;
	return join "\n", @difference;
}

1;
